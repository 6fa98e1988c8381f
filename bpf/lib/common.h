/* SPDX-License-Identifier: GPL-2.0 */
/* What every header needs: kernel types, helpers, and the numbers programs agree on. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <linux/types.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* Names the tail-call map and slot of a function; the loader fills the map from these tags. */
#define TAIL_CALL(map_and_slot) \
	__attribute__((section("tc/tail"), btf_decl_tag("tail:" map_and_slot)))

/*
 * skb->cb[]: five words that survive a tail call and nothing else. cls_bpf does not clear them,
 * so an entry program does. Each name is one agreement between a caller and its tail call.
 */
enum cb_slot {
	CB_SRC_LABEL = 0, /* handle_policy: identity of the sender */
	CB_DST_LABEL = 1, /* drop notification: identity of the destination */
	CB_REASON = 2, /* drop notification: reason, extended error */
	CB_FROM_HOST = 3, /* handle_policy: 1 when the node itself delivers */
	CB_FROM_TUNNEL = 4, /* handle_policy: 1 when the packet came out of the tunnel */
};

/*
 * skb->mark carries the identity through the stack: IIIIIIII IIIIIIII KKKKMMMM CCCCCCCC, identity
 * bits 15..0 on top, bits 23..16 (cluster) at the bottom, a magic number in bits 11..8.
 */
enum mark_magic {
	MARK_MAGIC_TO_PROXY = 0x0200,
	MARK_MAGIC_SNAT_DONE = 0x0300,
	MARK_MAGIC_OVERLAY = 0x0400,
	MARK_MAGIC_HOST = 0x0C00,
	MARK_MAGIC_IDENTITY = 0x0F00,
	MARK_MAGIC_MASK = 0x0F00,
};

/* A packet with this verdict goes on to the next qdisc or the stack. */
#define CTX_ACT_OK TC_ACT_OK

static __always_inline void cb_clear(struct __sk_buff *ctx)
{
	ctx->cb[0] = 0;
	ctx->cb[1] = 0;
	ctx->cb[2] = 0;
	ctx->cb[3] = 0;
	ctx->cb[4] = 0;
}

char _license[] SEC("license") = "GPL";
