/* SPDX-License-Identifier: GPL-2.0 */
/* Translating an address and port of an IPv4 packet, checksums included. */
#pragma once

#include "common.h"
#include "drop_reasons.h"
#include "ipv4.h"

enum rewrite_side {
	REWRITE_SRC = 0,
	REWRITE_DST = 1,
};

struct rewrite4 {
	__be32 old_addr;
	__be32 new_addr;
	__be16 old_port; /* ICMP: identifier */
	__be16 new_port;
	__u16 l3_off; /* of the IPv4 header */
	__u16 l4_off;
	__u8 side; /* enum rewrite_side */
	__u8 proto;
	__u8 has_l4; /* 0: a later fragment, which has neither ports nor checksum */
	__u8 pad;
};

static __always_inline int rewrite4_addr(struct __sk_buff *ctx, const struct rewrite4 *change)
{
	int off = change->l3_off + (change->side == REWRITE_SRC ? offsetof(struct iphdr, saddr) :
								  offsetof(struct iphdr, daddr));

	if (bpf_skb_store_bytes(ctx, off, &change->new_addr, sizeof(change->new_addr), 0))
		return DROP_WRITE_ERROR;
	if (bpf_l3_csum_replace(ctx, change->l3_off + offsetof(struct iphdr, check),
				change->old_addr, change->new_addr, 4))
		return DROP_CSUM_L3;
	return 0;
}

/* Where the protocol keeps its checksum, from its header on; -1: none that we may touch. */
static __always_inline int l4_csum_off(__u8 proto)
{
	return proto == IPPROTO_TCP ? 16 : proto == IPPROTO_UDP ? 6 : proto == IPPROTO_ICMP ? 2 : -1;
}

static __always_inline int rewrite4_l4(struct __sk_buff *ctx, const struct rewrite4 *change)
{
	/* UDP may have no checksum, and then must not get one. */
	__u64 flags = change->proto == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;
	int csum = l4_csum_off(change->proto);
	int port_off = change->l4_off + (change->side == REWRITE_SRC ? 0 : 2);

	if (change->proto == IPPROTO_SCTP)
		/* Its CRC covers no address, but it does cover the ports. */
		return change->old_port == change->new_port ? 0 : DROP_CSUM_L4;
	if (csum < 0)
		return 0;
	csum += change->l4_off;
	if (change->proto == IPPROTO_ICMP)
		port_off = change->l4_off + 4;
	else if (bpf_l4_csum_replace(ctx, csum, change->old_addr, change->new_addr,
				     flags | BPF_F_PSEUDO_HDR | 4))
		return DROP_CSUM_L4;
	if (change->old_port == change->new_port)
		return 0;
	if (bpf_l4_csum_replace(ctx, csum, change->old_port, change->new_port, flags | 2))
		return DROP_CSUM_L4;
	if (bpf_skb_store_bytes(ctx, port_off, &change->new_port, sizeof(change->new_port), 0))
		return DROP_WRITE_ERROR;
	return 0;
}

/* 0 or a DROP_*. */
VERIFIED_ONCE int rewrite4(struct __sk_buff *ctx, const struct rewrite4 *change)
{
	int ret;

	if (!change)
		return DROP_INVALID;
	ret = rewrite4_addr(ctx, change);
	if (ret < 0 || !change->has_l4)
		return ret;
	return rewrite4_l4(ctx, change);
}

/*
 * The same for an ICMP error, where the translated address is the opposite side of the packet it
 * quotes. Of that only the header and the ports are there: its own IP checksum makes up for the
 * address, and the ICMP checksum is corrected for the port. The error's outer address follows if
 * it is the one translated; an error may also come from a router on the way. 0 or a DROP_*.
 */
VERIFIED_ONCE int rewrite4_quote(struct __sk_buff *ctx, const struct rewrite4 *outer)
{
	struct rewrite4 quoted = {};
	struct iphdr head, inner;
	int port_off;

	if (!outer)
		return DROP_INVALID;
	quoted = *outer;
	quoted.l3_off = outer->l4_off + 8; /* behind the ICMP header */
	if (bpf_skb_load_bytes(ctx, outer->l3_off, &head, sizeof(head)) ||
	    bpf_skb_load_bytes(ctx, quoted.l3_off, &inner, sizeof(inner)))
		return DROP_CT_INVALID_HDR;
	quoted.side = outer->side == REWRITE_SRC ? REWRITE_DST : REWRITE_SRC;
	if (rewrite4_addr(ctx, &quoted) < 0)
		return DROP_CSUM_L3;
	port_off = quoted.l3_off + inner.ihl * 4;
	if (inner.protocol == IPPROTO_ICMP)
		port_off += 4;
	else if (quoted.side == REWRITE_DST)
		port_off += 2;
	if (bpf_skb_store_bytes(ctx, port_off, &quoted.new_port, sizeof(quoted.new_port), 0))
		return DROP_WRITE_ERROR;
	if (bpf_l4_csum_replace(ctx, outer->l4_off + l4_csum_off(IPPROTO_ICMP), quoted.old_port,
				quoted.new_port, 2))
		return DROP_CSUM_L4;
	if ((outer->side == REWRITE_SRC ? head.saddr : head.daddr) != outer->old_addr)
		return 0;
	return rewrite4_addr(ctx, outer);
}
