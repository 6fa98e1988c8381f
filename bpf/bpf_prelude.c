// SPDX-License-Identifier: GPL-2.0
/*
 * Runs in front of a program under test and gives the packet what BPF_PROG_TEST_RUN cannot: the
 * metadata of a decapsulated tunnel packet, tc_index and queue mapping. Never attached.
 */
#include "lib/common.h"

/* What the packet shall have before the program under test sees it. */
struct prelude {
	__u32 has_tunnel; /* 0: the packet did not come out of a tunnel */
	__u32 tunnel_id; /* VNI */
	__be32 tunnel_source; /* node that encapsulated it */
	__u32 tc_index;
};

_Static_assert(sizeof(struct prelude) == 16, "prelude value");

/* Written by the test harness before each run, read by prelude(). */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct prelude);
} prelude_state SEC(".maps");

/* Slot 0: the program under test, written by the harness. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} prelude_next SEC(".maps");

static __always_inline int set_tunnel(struct __sk_buff *ctx, const struct prelude *state)
{
	struct bpf_tunnel_key key = {
		.tunnel_id = state->tunnel_id,
		.tunnel_ttl = 64,
	};

	/* The helper reads the addresses in host byte order. What it stores as our own end is what
	 * a receiver reads as the remote one. */
	key.local_ipv4 = bpf_ntohl(state->tunnel_source);
	return bpf_skb_set_tunnel_key(ctx, &key, sizeof(key), BPF_F_ZERO_CSUM_TX);
}

/* TC_ACT_UNSPEC tells the harness that the program under test did not run. */
SEC("tc/prelude") int prelude(struct __sk_buff *ctx)
{
	__u32 zero = 0;
	const struct prelude *state = bpf_map_lookup_elem(&prelude_state, &zero);

	if (!state)
		return TC_ACT_UNSPEC;
	ctx->tc_index = state->tc_index;
	if (state->has_tunnel && set_tunnel(ctx, state))
		return TC_ACT_UNSPEC;
	bpf_tail_call_static(ctx, &prelude_next, 0);
	return TC_ACT_UNSPEC;
}
