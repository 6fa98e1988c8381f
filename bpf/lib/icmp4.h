/* SPDX-License-Identifier: GPL-2.0 */
/*
 * ICMP errors of our own: "larger than the way takes", for packets that the node's stack never
 * sees and would have answered so.
 *
 *   IP  20   ICMP  8   | the packet's header 20..60, and 8 bytes behind it (TCP: 20)
 */
#pragma once

#include "common.h"
#include "drop_reasons.h"
#include "eth.h"
#include "flow.h"
#include "ipv4.h"

#define ICMP4_TTL 64
#define ICMP4_QUOTED_BYTES 8 /* of the transport header: the ports are in them */
/* A checksum that a device is to fill in lies farther back, and the kernel does not cut it off. */
#define ICMP4_QUOTED_TCP_BYTES 20
#define IPV4_DF bpf_htons(0x4000)
#define IPV4_MAX_OPTIONS 40u

/* What stands before the quoted header's options. */
struct icmp4_error {
	struct iphdr ip;
	__u8 type;
	__u8 code;
	__sum16 check;
	__be16 unused;
	__be16 mtu; /* largest packet the way takes */
	struct iphdr quoted;
};

#define ICMP4_REST_BYTES (IPV4_MAX_OPTIONS + ICMP4_QUOTED_TCP_BYTES)
#define ICMP4_ERROR_BYTES (sizeof(struct icmp4_error) - sizeof(struct iphdr))

_Static_assert(sizeof(struct icmp4_error) == 48, "ICMP error up to the quoted header");

/* The one's complement of a sum of 16-bit words: RFC 1071 arithmetic. */
static __always_inline __sum16 csum_fold(__s64 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return ~((sum & 0xffff) + (sum >> 16));
}

/* Source and destination of the frame change places. 0 or a DROP_*. */
static __always_inline int icmp4_turn_frame(struct __sk_buff *ctx)
{
	struct ethhdr eth;

	if (bpf_skb_load_bytes(ctx, 0, &eth, sizeof(eth)))
		return DROP_INVALID;
	return eth_set_addrs(ctx, eth.h_dest, eth.h_source);
}

static __always_inline void icmp4_fill(struct icmp4_error *error, const __u8 *rest, __u32 length,
				       __u32 mtu)
{
	__s64 sum;

	error->ip.version = 4;
	error->ip.ihl = sizeof(error->ip) / 4;
	error->ip.tos = error->quoted.tos;
	error->ip.tot_len = bpf_htons(sizeof(*error) + length);
	error->ip.id = error->quoted.id;
	error->ip.frag_off = IPV4_DF;
	error->ip.ttl = ICMP4_TTL;
	error->ip.protocol = IPPROTO_ICMP;
	error->ip.saddr = error->quoted.daddr;
	error->ip.daddr = error->quoted.saddr;
	error->ip.check = csum_fold(bpf_csum_diff(NULL, 0, (__be32 *)&error->ip,
						  sizeof(error->ip), 0));
	error->type = ICMP4_DEST_UNREACH;
	error->code = ICMP4_FRAG_NEEDED;
	error->mtu = bpf_htons(mtu);
	sum = bpf_csum_diff(NULL, 0, (__be32 *)&error->type,
			    sizeof(*error) - sizeof(error->ip), 0);
	/* zeros behind the end change no sum, and a constant size pleases the verifier */
	sum = bpf_csum_diff(NULL, 0, (__be32 *)rest, ICMP4_REST_BYTES, sum);
	error->check = csum_fold(sum);
}

/*
 * Makes of a packet the error about it, as if its destination had said that no more than `mtu`
 * bytes get there; what is left to do is to send it where the packet came from. 0 or a DROP_*: the
 * packet may have been changed by then.
 */
VERIFIED_ONCE int icmp4_frag_needed(struct __sk_buff *ctx, __u32 mtu)
{
	__u8 rest[ICMP4_REST_BYTES] = {};
	struct icmp4_error error = {};
	__u64 length;

	if (bpf_skb_load_bytes(ctx, IPV4_OFF, &error.quoted, sizeof(error.quoted)))
		return DROP_INVALID;
	length = error.quoted.ihl * 4u - sizeof(error.quoted);
	length += error.quoted.protocol == IPPROTO_TCP ? ICMP4_QUOTED_TCP_BYTES :
							 ICMP4_QUOTED_BYTES;
	/* The compiler knows how long a header can be, the verifier does not: keep both tests below,
	 * and apart, for Linux 6.1 does not see through their difference. */
	asm volatile("" : "+r"(length));
	if (length < ICMP4_QUOTED_BYTES)
		return DROP_INVALID;
	asm volatile("" : "+r"(length));
	if (length > sizeof(rest))
		return DROP_INVALID;
	if (bpf_skb_load_bytes(ctx, IPV4_OFF + sizeof(error.quoted), rest, length))
		return DROP_INVALID;
	icmp4_fill(&error, rest, length, mtu);
	if (bpf_skb_change_tail(ctx, IPV4_OFF + sizeof(error.quoted) + length, 0))
		return DROP_INVALID;
	/* The room opens between the fixed header and whatever follows it. */
	if (bpf_skb_adjust_room(ctx, ICMP4_ERROR_BYTES, BPF_ADJ_ROOM_NET, 0))
		return DROP_INVALID;
	if (bpf_skb_store_bytes(ctx, IPV4_OFF, &error, sizeof(error), 0))
		return DROP_WRITE_ERROR;
	return icmp4_turn_frame(ctx);
}
