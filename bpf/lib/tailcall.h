/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Tail calls of one object: the map is private to a device (cilium_calls_NNNNN and its kin) and
 * filled from the functions' declaration tags. Slot numbers are those of Cilium 1.13; a slot has
 * one meaning in every object.
 */
#pragma once

#include "common.h"
#include "drop_reasons.h"
#include "mind.h"

enum call_slot {
	CALL_DROP_NOTIFY = 1,
	CALL_ARP = 6,
	CALL_IPV4 = 7, /* from a pod, the network or the overlay */
	CALL_IPV4_POLICY = 11, /* handle_policy, after conntrack */
	CALL_IPV4_TO_ENDPOINT = 13, /* to-container, after conntrack */
	CALL_NODEPORT_NAT_EGRESS = 15,
	CALL_NODEPORT_REVNAT = 17,
	CALL_NODEPORT_NAT_FWD = 19,
	CALL_NODEPORT_DSR = 20,
	CALL_IPV4_FROM_HOST = 22,
	CALL_IPV4_CONT = 25, /* from a pod, after conntrack */
	CALL_CT_INGRESS = 27, /* to-container */
	CALL_CT_INGRESS_POLICY = 28, /* handle_policy */
	CALL_CT_EGRESS = 29, /* from-container */
	CALL_NODEPORT_NAT_INGRESS = 36,
	CALL_SNAT_FWD = 38,
	CALL_SLOTS = 48,
};

const volatile enum call_slot btf_call_slot = CALL_DROP_NOTIFY;

/* Written by the loader, read by the programs of one device. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, CALL_SLOTS);
	__type(key, __u32);
	__type(value, __u32);
} cilium_calls SEC(".maps");

/* Returns only when the slot is empty, and then with the drop to report; `ext_err`, if given,
 * gets the number of the slot. */
static __always_inline int tail_call(struct __sk_buff *ctx, const enum call_slot slot,
				     __s8 *ext_err)
{
	mind_say(ctx, MIND_TAIL_CALL, 0, slot);
	bpf_tail_call_static(ctx, &cilium_calls, slot);
	if (ext_err)
		*ext_err = (__s8)slot;
	return DROP_MISSED_TAIL_CALL;
}
