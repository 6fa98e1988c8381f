/* SPDX-License-Identifier: GPL-2.0 */
/* What every header needs: kernel types, helpers, and the numbers programs agree on. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include <linux/bpf.h>
#include <linux/errno.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <linux/types.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/*
 * A function the verifier looks at once per program, by itself, instead of once per path that
 * leads to it: the paths before and after the call add up instead of multiplying. Its pointer
 * arguments may be NULL for all the verifier knows, and what they point to must be initialised.
 * Linux 6.1 takes no key or value of a map from behind such a pointer: copy it to the stack.
 */
#define VERIFIED_ONCE __attribute__((noinline))

/* What is rare leaves the straight way through the code. */
#define likely(condition) __builtin_expect(!!(condition), 1)
#define unlikely(condition) __builtin_expect(!!(condition), 0)

/*
 * Parts of a key, written as wide as the kernel's hash and compare read them. A load of bytes that
 * several narrower stores have just written must wait until those have reached the cache: that is
 * longer than a look-up takes. Where a key is spelled in words, it says what lies in them.
 */
typedef __u64 __attribute__((may_alias)) word64;
typedef __u32 __attribute__((may_alias)) word32;
typedef __u16 __attribute__((may_alias)) word16;
#define IN_WORDS __attribute__((aligned(8)))

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "words hold their first field lowest");

/* Names the tail-call map and slot of a function; the loader fills the map from these tags. */
#define TAIL_CALL(map_and_slot) \
	__attribute__((section("tc/tail"), btf_decl_tag("tail:" map_and_slot)))

/*
 * skb->cb[]: five words that survive a tail call and nothing else. cls_bpf does not clear them,
 * so an entry program does. Each name is one agreement between a caller and its tail call.
 */
enum cb_slot {
	/* To handle_policy and what follows it: */
	CB_SRC_LABEL = 0, /* identity of the sender */
	CB_DELIVERY = 1, /* enum delivery_flag */
	CB_FROM_HOST = 3, /* 1: the node itself delivers */
	CB_FROM_TUNNEL = 4, /* 1: the packet came out of the tunnel */
	/* From service translation, through conntrack, to the rest of from-container: */
	CB_LB_STATE = 4, /* rev_nat_index << 16 | 1 for a hairpin */
	/* To a custom call: */
	CB_CUSTOM_CALLS = 4, /* verdict << 24 | identity of the other side */
	/* From every entry to what it calls: */
	CB_MIND = 2, /* 1: the tracer wants to be told of this packet, mind.h */
	/* Around NodePort, in bpf_host and bpf_overlay: */
	CB_NODEPORT = 1, /* 1: has been through NodePort translation, do not look again */
	CB_DSR_ADDR = 3, /* service address and port for the DSR option */
	CB_DSR_PORT = 4,
};

enum delivery_flag {
	DELIVERY_HAIRPIN = 1, /* the pod's own answer, back from its service */
	DELIVERY_PEER = 2, /* bpf_redirect_peer() works from this hook */
	DELIVERY_TRACKED = 4, /* conntrack's buffer holds the flow of this packet */
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
	/* With MARK_MAGIC_IDENTITY, whose key bits are free here: DELIVERY_HAIRPIN for to-container. */
	MARK_HAIRPIN = 0x1000,
};

/* A packet with this verdict goes on to the next qdisc or the stack. */
#define CTX_ACT_OK TC_ACT_OK

/*
 * The compiler likes to compute &ctx->cb[n] first and use it later; the verifier wants every
 * access to be context + constant. Hence the instruction itself.
 */
static __always_inline void cb_set(struct __sk_buff *ctx, const __u32 slot, __u32 value)
{
	asm volatile("*(u32 *)(%0 + %1) = %2"
		     :: "r"(ctx), "i"(offsetof(struct __sk_buff, cb) + slot * 4), "r"(value)
		     : "memory");
}

static __always_inline __u32 cb_get(const struct __sk_buff *ctx, const __u32 slot)
{
	__u32 value;

	asm volatile("%0 = *(u32 *)(%1 + %2)"
		     : "=r"(value)
		     : "r"(ctx), "i"(offsetof(struct __sk_buff, cb) + slot * 4)
		     : "memory");
	return value;
}

/*
 * Begin and end of the packet's linear part. The context says u32 and the kernel makes pointers of
 * it; a compiler that has seen the u32 may cut the upper half off when it keeps the value.
 */
static __always_inline void *ctx_data(const struct __sk_buff *ctx)
{
	void *data;

	asm volatile("%0 = *(u32 *)(%1 + %2)"
		     : "=r"(data)
		     : "r"(ctx), "i"(offsetof(struct __sk_buff, data)));
	return data;
}

static __always_inline void *ctx_data_end(const struct __sk_buff *ctx)
{
	void *end;

	asm volatile("%0 = *(u32 *)(%1 + %2)"
		     : "=r"(end)
		     : "r"(ctx), "i"(offsetof(struct __sk_buff, data_end)));
	return end;
}

static __always_inline void cb_clear(struct __sk_buff *ctx)
{
	cb_set(ctx, 0, 0);
	cb_set(ctx, 1, 0);
	cb_set(ctx, 2, 0);
	cb_set(ctx, 3, 0);
	cb_set(ctx, 4, 0);
}

char _license[] SEC("license") = "GPL";
