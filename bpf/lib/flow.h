/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The flow a packet belongs to, read from its headers.
 *
 * The tuple is kept as Cilium keeps it: addresses as in the packet, but the four port bytes land
 * on `dport` first, so `dport` holds the packet's source port and `sport` its destination port.
 * Seen that way a fresh tuple is already the key of the packets flowing the other way.
 */
#pragma once

#include "common.h"
#include "drop_reasons.h"
#include "frag.h"
#include "ipv4.h"

#define TCP_FLAG_FIN 0x01
#define TCP_FLAG_SYN 0x02
#define TCP_FLAG_RST 0x04
#define TCP_FLAG_ACK 0x10
#define TCP_FLAGS_OFF 13

enum icmp_type {
	ICMP4_ECHO_REPLY = 0,
	ICMP4_DEST_UNREACH = 3,
	ICMP4_ECHO = 8,
	ICMP4_TIME_EXCEEDED = 11,
	ICMP4_PARAM_PROBLEM = 12,
};

#define ICMP4_FRAG_NEEDED 4 /* code of ICMP4_DEST_UNREACH */

/* Which packets an entry's tuple stands for. */
enum tuple_flag {
	TUPLE_F_OUT = 0,
	TUPLE_F_IN = 1,
	TUPLE_F_RELATED = 2,
	TUPLE_F_SERVICE = 4,
};

const volatile enum tuple_flag btf_tuple_flag = TUPLE_F_OUT;

struct ipv4_ct_tuple {
	__be32 daddr;
	__be32 saddr;
	__be16 dport;
	__be16 sport;
	__u8 nexthdr;
	__u8 flags; /* enum tuple_flag */
} __attribute__((packed));

_Static_assert(sizeof(struct ipv4_ct_tuple) == 14, "cilium_ct4_global key");

/* The same in words. */
struct tuple_words {
	word64 addrs; /* daddr, saddr */
	word32 ports; /* dport, sport: as they lie in the packet */
	word16 rest; /* nexthdr, flags */
};

static __always_inline void tuple_copy(struct ipv4_ct_tuple *to, const struct ipv4_ct_tuple *from)
{
	const struct tuple_words *source = (const void *)from;
	struct tuple_words *target = (void *)to;

	target->addrs = source->addrs;
	target->ports = source->ports;
	target->rest = source->rest;
}

static __always_inline void tuple_set_flags(struct ipv4_ct_tuple *tuple, __u8 flags)
{
	struct tuple_words *words = (void *)tuple;

	words->rest = (words->rest & 0xff) | flags << 8;
}

struct icmp_header {
	__u8 type;
	__u8 code;
	__sum16 check;
	__be16 id;
	__be16 sequence;
};

/* What the programs need to know of a packet beyond its tuple. */
struct flow4 {
	struct ipv4_ct_tuple tuple;
	__u16 l4_off;
	__u8 proto; /* of the packet; the tuple of an ICMP error is that of the packet inside */
	__u8 tcp_flags; /* 0 unless the TCP header is here */
	__u8 icmp_type;
	__u8 icmp_code;
	bool has_l4; /* false: a later fragment */
	bool error; /* an ICMP error: never opens a flow */
	bool related; /* an ICMP error about the tuple's flow */
	__u8 pad;
} IN_WORDS;

_Static_assert(sizeof(struct flow4) == 24 && offsetof(struct flow4, proto) == 16, "flow4 in words");

static __always_inline __u32 l4_min_len(__u8 proto)
{
	return proto == IPPROTO_TCP ? 20 : proto == IPPROTO_SCTP ? 12 : 8;
}

/*
 * An ICMP error belongs to the flow whose packet it quotes: the tuple becomes that of the quoted
 * packet's other direction, as if its receiver had answered. A quote of a packet the receiver of
 * the error has not sent is forged, or not for it: the error then stands for itself.
 */
static __always_inline int icmp_error_flow(struct __sk_buff *ctx, struct flow4 *flow)
{
	struct iphdr inner;
	struct frag_ports ports;
	int off = flow->l4_off + sizeof(struct icmp_header);

	if (bpf_skb_load_bytes(ctx, off, &inner, sizeof(inner)) || inner.version != 4)
		return DROP_CT_INVALID_HDR;
	off += inner.ihl * 4;
	if (bpf_skb_load_bytes(ctx, off, &ports, sizeof(ports)))
		return DROP_CT_INVALID_HDR;
	if (inner.saddr != flow->tuple.daddr)
		return 0;
	if (inner.protocol == IPPROTO_ICMP) {
		/* Two more bytes in: a quoted echo request has its identifier there. */
		if (bpf_skb_load_bytes(ctx, off + 4, &ports.sport, sizeof(ports.sport)))
			return DROP_CT_INVALID_HDR;
		ports.dport = 0;
	}
	flow->related = true;
	flow->tuple.nexthdr = inner.protocol;
	flow->tuple.saddr = inner.daddr;
	flow->tuple.dport = ports.dport;
	flow->tuple.sport = ports.sport;
	return 0;
}

static __always_inline int icmp_flow(struct __sk_buff *ctx, struct flow4 *flow)
{
	struct icmp_header icmp;

	if (bpf_skb_load_bytes(ctx, flow->l4_off, &icmp, sizeof(icmp)))
		return DROP_CT_INVALID_HDR;
	flow->icmp_type = icmp.type;
	flow->icmp_code = icmp.code;
	switch (icmp.type) {
	case ICMP4_DEST_UNREACH:
	case ICMP4_TIME_EXCEEDED:
	case ICMP4_PARAM_PROBLEM:
		flow->error = true;
		return icmp_error_flow(ctx, flow);
	case ICMP4_ECHO_REPLY:
		flow->tuple.sport = icmp.id;
		return 0;
	case ICMP4_ECHO:
		flow->tuple.dport = icmp.id;
		return 0;
	default:
		return 0;
	}
}

/* The usual packet: of TCP or UDP, no fragment, and what is read of its transport header lies in the
 * linear part. False: anything else, and nothing has been read. */
static __always_inline bool ports_flow_linear(struct __sk_buff *ctx, const struct iphdr *ip4,
					      struct flow4 *flow)
{
	const struct l4_start {
		word32 ports;
		__u8 rest[TCP_FLAGS_OFF - sizeof(struct frag_ports)];
		__u8 tcp_flags;
	} *l4 = (const void *)ip4 + ipv4_hlen(ip4);
	struct tuple_words *tuple = (void *)&flow->tuple;
	__u32 l4_len = bpf_ntohs(ip4->tot_len) - ipv4_hlen(ip4);
	bool tcp = flow->proto == IPPROTO_TCP;

	if ((!tcp && flow->proto != IPPROTO_UDP) || ipv4_is_fragment(ip4) ||
	    (const void *)(l4 + 1) > ctx_data_end(ctx) || l4_len < l4_min_len(flow->proto))
		return false;
	tuple->ports = l4->ports;
	flow->tcp_flags = tcp ? l4->tcp_flags : 0;
	flow->has_l4 = true;
	return true;
}

static __always_inline int ports_flow(struct __sk_buff *ctx, const struct iphdr *ip4,
				      struct flow4 *flow)
{
	struct frag_ports ports = {};
	int ret;

	ret = ipv4_load_ports(ctx, ip4, flow->l4_off, &ports);
	if (ret < 0)
		return ret;
	flow->tuple.dport = ports.sport;
	flow->tuple.sport = ports.dport;
	if (flow->proto == IPPROTO_TCP && flow->has_l4 &&
	    bpf_skb_load_bytes(ctx, flow->l4_off + TCP_FLAGS_OFF, &flow->tcp_flags, 1))
		return DROP_CT_INVALID_HDR;
	return 0;
}

static __always_inline int l4_flow(struct __sk_buff *ctx, const struct iphdr *ip4,
				   struct flow4 *flow)
{
	__u32 l4_len = bpf_ntohs(ip4->tot_len) - ipv4_hlen(ip4);

	switch (flow->proto) {
	case IPPROTO_ICMP:
		if (ipv4_is_fragment(ip4))
			return DROP_INVALID;
		if (l4_len < l4_min_len(IPPROTO_ICMP))
			return DROP_CT_INVALID_HDR;
		return icmp_flow(ctx, flow);
	case IPPROTO_TCP:
	case IPPROTO_UDP:
	case IPPROTO_SCTP:
		if (flow->has_l4 && l4_len < l4_min_len(flow->proto))
			return DROP_CT_INVALID_HDR;
		return ports_flow(ctx, ip4, flow);
	default:
		return DROP_CT_UNKNOWN_PROTO;
	}
}

/* Fills `flow` from a sane packet; 0 or a DROP_*. */
VERIFIED_ONCE int flow4_read(struct __sk_buff *ctx, struct flow4 *flow)
{
	struct tuple_words *tuple = (void *)flow;
	struct iphdr *ip4 = ipv4_header(ctx);

	if (!ip4 || !flow)
		return DROP_INVALID;
	tuple->addrs = (__u64)ip4->saddr << 32 | ip4->daddr;
	tuple->ports = 0;
	tuple->rest = ip4->protocol;
	flow->l4_off = IPV4_OFF + ipv4_hlen(ip4);
	*(word64 *)&flow->proto = ip4->protocol; /* and the rest 0 */
	if (likely(ports_flow_linear(ctx, ip4, flow)))
		return 0;
	flow->has_l4 = !(ip4->frag_off & IPV4_FRAG_OFFSET);
	return l4_flow(ctx, ip4, flow);
}

/* The packet's destination port, whichever way round the tuple is held: before conntrack. */
static __always_inline __be16 flow4_dport(const struct flow4 *flow)
{
	return flow->tuple.sport;
}

static __always_inline __be16 flow4_sport(const struct flow4 *flow)
{
	return flow->tuple.dport;
}
