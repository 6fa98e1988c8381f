/* SPDX-License-Identifier: GPL-2.0 */
/* How a packet stays known while IPsec encrypts and decrypts it.
 *
 * Its identity goes across by what is true of both sides: the buffer that esp_output() is given,
 * and the number that the packet will carry under its SPI.
 */
#ifndef LAB_PROBES_SECRET_H
#define LAB_PROBES_SECRET_H

#include "sight.h"

#define EINPROGRESS 115

/* Whether the buffer holds a wanted packet, asked without a look at what is in it: while IPsec
 * works on it, its headers are in pieces.
 */
static __always_inline bool in_hand(const struct sk_buff *skb, u32 netns)
{
	if (!may_be_wanted(false))
		return false;
	if (trace_filter.mode == MODE_ALL)
		return in_lab(netns);
	return buffer_seen(place_of(skb), skb);
}

static __always_inline struct record *without_bytes(void *ctx, u16 kind, const struct sk_buff *skb,
						    u32 netns)
{
	struct record *record = record_begin(kind);

	if (record) {
		record->location = bpf_get_func_ip(ctx);
		record->skb = (u64)skb;
		record->netns = netns;
	}
	return record;
}

/* On entry of esp_output(). */
static __always_inline int encrypting(void *ctx, const struct xfrm_state *state,
				      const struct sk_buff *skb)
{
	u32 netns = state->xs_net.net->ns.inum;
	const struct xfrm_skb_cb *control;
	struct secret secret = {};
	struct record *record;
	u8 one = 1;

	if (!in_hand(skb, netns))
		return 0;
	control = (void *)skb + bpf_core_field_offset(struct sk_buff, cb);
	secret.destination = state->id.daddr.a4;
	secret.spi = state->id.spi;
	secret.sequence = bpf_htonl(BPF_CORE_READ(control, seq.output.low));
	secret.generation = trace_filter.generation;
	bpf_map_update_elem(&trace_secrets, &secret, &one, BPF_ANY);
	trace_filter.encrypted = 1;
	record = without_bytes(ctx, KIND_XFRM_ENCRYPT, skb, netns);
	if (!record)
		return 0;
	record->state = secret.spi;
	record->hash = secret.sequence;
	record->arg = (u64)state->props.mode << 32 | secret.destination;
	record_end(record);
	return 0;
}

/* On return from esp_input(). @inside: the protocol that came out, or a negative error. */
static __always_inline int decrypted(void *ctx, const struct sk_buff *skb, u32 netns, int inside)
{
	struct record *record;

	/* handed to another processor: xfrm_input() will tell, if the buffer is still there */
	if (inside == -EINPROGRESS || !in_hand(skb, netns))
		return 0;
	record = without_bytes(ctx, KIND_XFRM_DECRYPT, skb, netns);
	if (!record)
		return 0;
	record->verdict = inside;
	record_end(record);
	return 0;
}

#endif
