/* SPDX-License-Identifier: GPL-2.0 */
/* Forwarding past the node's stack: its routing table, asked from here. */
#pragma once

#include "common.h"
#include "config.h"
#include "drop_reasons.h"
#include "eth.h"
#include "ipv4.h"
#include "mind.h"

#define FAMILY_INET 2 /* AF_INET, whose header is not for BPF */

/* Written and read by the datapath: MAC of each NodePort client, for answers whose neighbour the
 * stack does not know. Capacity: clients; the oldest make room. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __be32);
	__type(value, struct mac);
} cilium_nodeport_neigh4 SEC(".maps");

static __always_inline void neigh_learn(struct __sk_buff *ctx, __be32 addr)
{
	struct mac mac = {};

	if (!bpf_skb_load_bytes(ctx, ETH_ALEN, mac.addr, ETH_ALEN))
		bpf_map_update_elem(&cilium_nodeport_neigh4, &addr, &mac, BPF_ANY);
}

/* The route has no neighbour yet: what we learned, or the stack resolves it for us. */
static __always_inline int fib_redirect_unresolved(struct __sk_buff *ctx, __u32 ifindex,
						   __be32 daddr, __be32 gateway)
{
	struct bpf_redir_neigh next = { .nh_family = FAMILY_INET, .ipv4_nh = gateway };
	const struct mac *known = bpf_map_lookup_elem(&cilium_nodeport_neigh4, &daddr);

	if (mind_armed(ctx)) {
		struct mind_note note = MIND_NOTE(MIND_LOOKUP, MIND_MAP_NEIGH, 0);

		mind_fill(&note, &daddr, sizeof(daddr), known, sizeof(*known));
		mind_write(ctx, &note);
	}
	if (!known)
		return bpf_redirect_neigh(ifindex, &next, sizeof(next), 0);
	if (eth_set_addrs(ctx, interface_mac, known->addr))
		return DROP_WRITE_ERROR;
	return bpf_redirect(ifindex, 0);
}

/* Sends the packet where the node's routes say, as a router does. A verdict or a DROP_*; the
 * look-up's own result goes to `ext_err`. */
VERIFIED_ONCE int fib_redirect4(struct __sk_buff *ctx, __u32 *ext_err)
{
	struct bpf_fib_lookup fib = { .family = FAMILY_INET, .ifindex = ctx->ifindex };
	struct iphdr *ip4 = ipv4_header(ctx);
	__be32 daddr;
	long found;
	int ret;

	if (!ip4 || !ext_err)
		return DROP_INVALID;
	daddr = ip4->daddr;
	fib.l4_protocol = ip4->protocol;
	fib.ipv4_src = ip4->saddr;
	fib.ipv4_dst = daddr;
	ret = ipv4_dec_ttl(ctx);
	if (ret < 0)
		return ret;
	found = bpf_fib_lookup(ctx, &fib, sizeof(fib), 0);
	mind_say(ctx, MIND_LOOKUP, MIND_MAP_FIB, found);
	if (found == BPF_FIB_LKUP_RET_NO_NEIGH)
		return fib_redirect_unresolved(ctx, fib.ifindex, daddr, fib.ipv4_dst);
	if (found != BPF_FIB_LKUP_RET_SUCCESS) {
		*ext_err = found;
		return DROP_NO_FIB;
	}
	ret = eth_set_addrs(ctx, fib.smac, fib.dmac);
	return ret < 0 ? ret : bpf_redirect(fib.ifindex, 0);
}
