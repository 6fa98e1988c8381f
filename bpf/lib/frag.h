/* SPDX-License-Identifier: GPL-2.0 */
/*
 * IPv4 fragments: only the first carries ports. It leaves them in cilium_ipv4_frag_datagrams, the
 * others read them there, so that all of a datagram meet the same fate.
 */
#pragma once

#include "common.h"
#include "config.h"
#include "drop_reasons.h"
#include "ipv4.h"
#include "metrics.h"
#include "mind.h"

struct frag_key {
	__be32 daddr;
	__be32 saddr;
	__be16 id;
	__u8 proto;
	__u8 pad;
};

struct frag_ports {
	__be16 sport;
	__be16 dport;
};

_Static_assert(sizeof(struct frag_key) == 12, "cilium_ipv4_frag_datagrams key");
_Static_assert(sizeof(struct frag_ports) == 4, "cilium_ipv4_frag_datagrams value");

/* Written and read by the datapath. Capacity: datagrams under way; the oldest make room. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct frag_key);
	__type(value, struct frag_ports);
} cilium_ipv4_frag_datagrams SEC(".maps");

static __always_inline void
frag_note(struct __sk_buff *ctx, const struct frag_key *key, const struct frag_ports *found)
{
	if (mind_armed(ctx)) {
		struct mind_note note = MIND_NOTE(MIND_LOOKUP, MIND_MAP_FRAG, 0);

		mind_fill(&note, key, sizeof(*key), found, sizeof(*found));
		mind_write(ctx, &note);
	}
}

/* Ports of the datagram in wire order, wherever they are. 0 or a DROP_*. */
static __always_inline int ipv4_load_ports(struct __sk_buff *ctx, const struct iphdr *ip4,
					   int l4_off, struct frag_ports *ports)
{
	struct frag_key key = {
		.daddr = ip4->daddr, .saddr = ip4->saddr, .id = ip4->id, .proto = ip4->protocol,
	};
	bool fragment = ipv4_is_fragment(ip4), first = !(ip4->frag_off & IPV4_FRAG_OFFSET);
	const struct frag_ports *known;

	if (fragment && !enable_ipv4_fragments)
		return DROP_FRAG_NOSUPPORT;
	if (first) {
		if (bpf_skb_load_bytes(ctx, l4_off, ports, sizeof(*ports)))
			return DROP_CT_INVALID_HDR;
		if (fragment &&
		    bpf_map_update_elem(&cilium_ipv4_frag_datagrams, &key, ports, BPF_ANY))
			metrics_count(ctx->len, REASON_FRAG_PACKET_UPDATE, METRIC_EGRESS);
		return 0;
	}
	metrics_count(ctx->len, REASON_FRAG_PACKET, METRIC_EGRESS);
	known = bpf_map_lookup_elem(&cilium_ipv4_frag_datagrams, &key);
	frag_note(ctx, &key, known);
	if (!known)
		return DROP_FRAG_NOT_FOUND;
	*ports = *known;
	return 0;
}
