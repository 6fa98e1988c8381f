/* SPDX-License-Identifier: GPL-2.0 */
/* IPsec's ESP: from the packet in clear to the encrypted one and back.
 *
 * Part of packet.bpf.c, for kernels with ESP that let functions be probed: nothing else in the
 * kernel tells of encryption.
 */
#ifndef LAB_PROBES_IPSEC_H
#define LAB_PROBES_IPSEC_H

#include "secret.h"

#define RESUMED (-1)		/* xfrm_input() again, behind an asynchronous decryption */

/* What a record's arg says in KIND_XFRM_FAULT. */
enum xfrm_fault {
	FAULT_NO_STATE = 1,
	FAULT_REPLAY = 2,
};

/* A security path is on every packet that was decrypted, and on no other. */
static __always_inline bool was_decrypted(const struct sk_buff *skb)
{
	return skb->active_extensions &
	       1 << bpf_core_enum_value(enum skb_ext_id, SKB_EXT_SEC_PATH);
}

/* The packet in clear, and the state that its route says will encrypt it. */
SEC("fentry/xfrm_output")
int BPF_PROG(on_xfrm_output, struct sock *sk, struct sk_buff *skb)
{
	const struct dst_entry *route = (void *)(skb->_skb_refdst & ~1UL);
	const struct xfrm_state *state;
	struct record *record;
	u32 netns;

	if (!may_be_wanted(true) || !route)
		return 0;
	netns = BPF_CORE_READ(route, dev, nd_net.net, ns.inum);
	if (!wanted(skb, netns, true))
		return 0;
	record = record_begin(KIND_XFRM_OUTPUT);
	if (!record)
		return 0;
	state = BPF_CORE_READ(route, xfrm);
	record->netns = netns;
	record->ifindex = BPF_CORE_READ(route, dev, ifindex);
	record->state = BPF_CORE_READ(state, id.spi);
	record->arg = (u64)BPF_CORE_READ(state, props.mode) << 32 |
		      BPF_CORE_READ(state, id.daddr.a4);
	fill_buffer(record, skb);
	record_stack(ctx, record);
	finish(record);
	return 0;
}

/* The packet's number is fixed here: from now on it is known by it. */
SEC("fentry/esp_output")
int BPF_PROG(on_esp_output, struct xfrm_state *state, struct sk_buff *skb)
{
	return encrypting(ctx, state, skb);
}

SEC("fentry/xfrm_input")
int BPF_PROG(on_xfrm_input, struct sk_buff *skb, int inside, __be32 spi, int encapsulation)
{
	struct record *record;

	if (encapsulation == RESUMED)
		return decrypted(ctx, skb, netns_of(skb->dev), inside);
	record = sight(KIND_XFRM_INPUT, skb, skb->dev);
	if (!record)
		return 0;
	record_stack(ctx, record);
	finish(record);
	return 0;
}

SEC("fexit/esp_input")
int BPF_PROG(on_esp_input, struct xfrm_state *state, struct sk_buff *skb, int inside)
{
	return decrypted(ctx, skb, state->xs_net.net->ns.inum, inside);
}

/* With what was decrypted, the buffer comes here a second time. */
SEC("fentry/ip_local_deliver")
int BPF_PROG(on_deliver_decrypted, struct sk_buff *skb)
{
	struct record *record;

	if (!may_be_wanted(false) || !was_decrypted(skb))
		return 0;
	record = sight(KIND_XFRM_DELIVER, skb, skb->dev);
	if (!record)
		return 0;
	record->config = receive_config(skb);
	record_stack(ctx, record);
	finish(record);
	return 0;
}

SEC("fexit/__xfrm_policy_check")
int BPF_PROG(on_policy_checked, struct sock *sk, int direction, struct sk_buff *skb,
	     unsigned short family, int passed)
{
	struct record *record;

	if (!may_be_wanted(false) || !was_decrypted(skb))
		return 0;
	record = sight(KIND_XFRM_CHECK, skb, skb->dev);
	if (!record)
		return 0;
	record->arg = direction;
	record->verdict = passed;
	finish(record);
	return 0;
}

static __always_inline int fault(void *ctx, const struct sk_buff *skb, enum xfrm_fault what)
{
	struct record *record;
	u32 netns = netns_of(skb->dev);

	if (!in_hand(skb, netns))
		return 0;
	record = without_bytes(ctx, KIND_XFRM_FAULT, skb, netns);
	if (!record)
		return 0;
	record->arg = what;
	record_end(record);
	return 0;
}

/* What the kernel would write to the audit log it knows of this very packet. */
SEC("fentry/xfrm_audit_state_notfound")
int BPF_PROG(on_no_state, struct sk_buff *skb)
{
	return fault(ctx, skb, FAULT_NO_STATE);
}

SEC("fentry/xfrm_audit_state_replay")
int BPF_PROG(on_replay, struct xfrm_state *state, struct sk_buff *skb)
{
	return fault(ctx, skb, FAULT_REPLAY);
}

/* A route that IPsec gave in place of the real one as long as it has no state to encrypt with. Its
 * device is the namespace's loopback; a route whose device went away has one of nobody's.
 */
SEC("fentry/dst_discard_out")
int BPF_PROG(on_discard, struct net *net, struct sock *sk, struct sk_buff *skb)
{
	const struct dst_entry *route = (void *)(skb->_skb_refdst & ~1UL);
	u32 netns = net->ns.inum;
	struct record *record;

	if (!may_be_wanted(true) || !route)
		return 0;
	if (BPF_CORE_READ(route, dev, nd_net.net) != net || !wanted(skb, netns, true))
		return 0;
	record = record_begin(KIND_XFRM_DISCARD);
	if (!record)
		return 0;
	record->netns = netns;
	fill_buffer(record, skb);
	record_stack(ctx, record);
	finish(record);
	return 0;
}

#endif
