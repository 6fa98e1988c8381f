/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Custom calls: a program of the user's runs after the datapath has decided. It finds the verdict
 * and the other side's identity in skb->cb[4] and must return that verdict (custom_verdict()).
 *
 *   cb[4]  31......24  23........0
 *          verdict     identity
 */
#pragma once

#include "common.h"
#include "metrics.h"

enum custom_slot {
	CUSTOM_IPV4_INGRESS = 0,
	CUSTOM_IPV4_EGRESS = 1,
	CUSTOM_SLOTS = 4, /* and two for IPv6 */
};

const volatile enum custom_slot btf_custom_slot = CUSTOM_IPV4_INGRESS;

/* Written by the user, read by the programs of one endpoint: cilium_calls_custom_NNNNN. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, CUSTOM_SLOTS);
	__type(key, __u32);
	__type(value, __u32);
} cilium_calls_custom SEC(".maps");

/* Room for both in one word; false when the verdict does not fit. */
static __always_inline bool encode_custom_prog_meta(struct __sk_buff *ctx, int verdict,
						    __u32 identity)
{
	if (verdict != (verdict & 0xff))
		return false;
	cb_set(ctx, CB_CUSTOM_CALLS, (__u32)verdict << 24 | (identity & 0xffffff));
	return true;
}

static __always_inline int custom_verdict(const struct __sk_buff *ctx)
{
	return cb_get(ctx, CB_CUSTOM_CALLS) >> 24;
}

static __always_inline __u32 custom_identity(const struct __sk_buff *ctx)
{
	return cb_get(ctx, CB_CUSTOM_CALLS) & 0xffffff;
}

/* The user's program, if there is one, gets the last word; it is the datapath's own. */
static __always_inline int custom_call(struct __sk_buff *ctx, const enum custom_slot slot,
				       int verdict, __u32 identity)
{
	if (!enable_custom_calls || !encode_custom_prog_meta(ctx, verdict, identity))
		return verdict;
	bpf_tail_call_static(ctx, &cilium_calls_custom, slot);
	metrics_count(ctx->len, REASON_MISSED_CUSTOM_CALL,
		      slot == CUSTOM_IPV4_INGRESS ? METRIC_INGRESS : METRIC_EGRESS);
	return verdict;
}
