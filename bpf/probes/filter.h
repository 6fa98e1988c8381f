/* SPDX-License-Identifier: GPL-2.0 */
/* Which packets are recorded, decided before anything expensive happens.
 *
 * A packet is recognised by its contents: by the cookie at the end of its innermost payload, or by
 * its innermost addresses and ports. Contents survive every change of buffer. The buffer's address
 * only bridges what contents cannot: translated addresses, encrypted or paged payload.
 */
#ifndef LAB_PROBES_FILTER_H
#define LAB_PROBES_FILTER_H

#include "record.h"

#define PROTO_ICMP 1
#define PROTO_TCP 6
#define PROTO_UDP 17
#define PROTO_ESP 50
#define ETHERNET_HEADER 14
#define UNSET_HEADER 0xffff
#define ETH_P_IP 0x0800

enum filter_mode {
	MODE_OFF = 0,		/* armed, nothing is recorded */
	MODE_COOKIE = 1,	/* packets with this cookie */
	MODE_TUPLE = 2,		/* packets of this flow, both directions */
	MODE_ALL = 3,		/* every packet in the lab's namespaces */
};

struct tuple {
	__be32 source;
	__be32 destination;
	__be16 source_port;	/* ICMP: identifier, in both */
	__be16 destination_port;
	u32 protocol;
};

/* Written by the collector while the programs run: one store arms or disarms them all. */
struct {
	u32 mode;
	u32 entry_netns;	/* only here an unknown packet is looked at; 0: everywhere */
	u64 cookie;
	struct tuple flow;	/* zero fields match everything */
	u64 linger_jiffies;	/* how long after its last sight a packet is looked for everywhere */
} trace_filter;

/* Until when (in jiffies) a wanted packet may be under way; before the first one: never. */
u64 trace_window;

/* UDP port whose payload is an Ethernet frame behind eight bytes of VXLAN. */
const volatile u16 vxlan_port = 8472;

/* Inode numbers of the lab's network namespaces. Writer: collector. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, u32);
	__type(value, u8);
} trace_netns SEC(".maps");

/* Buffers of wanted packets: address -> IP identification, to notice a recycled address. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, u64);
	__type(value, u32);
} trace_buffers SEC(".maps");

/* Flows that a wanted packet has been translated to. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct tuple);
	__type(value, u8);
} trace_flows SEC(".maps");

struct inner {
	struct tuple tuple;
	u32 id;			/* IP identification + 1, so that 0 means: no IP packet */
};

struct ip_head {
	u8 version_length;
	u8 tos;
	__be16 length;
	__be16 id;
	__be16 fragment;
	u8 ttl;
	u8 protocol;
	__be16 checksum;
	__be32 source;
	__be32 destination;
};

/* Reads the IPv4 header at @at and the two ports behind it; returns the address of the transport
 * header, 0 if this is no IPv4 packet.
 */
static __always_inline u64 read_ip(u64 at, struct inner *inner)
{
	struct ip_head ip;
	__be16 ports[4];

	if (bpf_probe_read_kernel(&ip, sizeof(ip), (void *)at) || (ip.version_length >> 4) != 4)
		return 0;
	at += (ip.version_length & 15) * 4;
	if (bpf_probe_read_kernel(&ports, sizeof(ports), (void *)at))
		return 0;
	inner->id = ip.id + 1;
	inner->tuple.source = ip.source;
	inner->tuple.destination = ip.destination;
	inner->tuple.protocol = ip.protocol;
	inner->tuple.source_port = ports[0];
	inner->tuple.destination_port = ports[1];
	if (ip.protocol == PROTO_ICMP) {
		inner->tuple.source_port = ports[2];
		inner->tuple.destination_port = ports[2];
	}
	return at;
}

/* The innermost IPv4 packet behind @at: one level of VXLAN is looked through. */
static __always_inline void read_inner(u64 at, struct inner *inner)
{
	struct inner outer = {};
	u64 transport;

	__builtin_memset(inner, 0, sizeof(*inner));
	transport = read_ip(at, inner);
	if (!transport || inner->tuple.protocol != PROTO_UDP ||
	    inner->tuple.destination_port != bpf_htons(vxlan_port))
		return;
	outer = *inner;
	if (!read_ip(transport + 16 + ETHERNET_HEADER, inner))
		*inner = outer;
}

/* What the lab puts at the end of the payloads it sends (lab/packets): magic, then the cookie. */
#define COOKIE_MAGIC 0x6c6162434f4f4b69ULL /* "labCOOKi" */

static __always_inline u64 read_cookie(const struct sk_buff *skb)
{
	__be64 end[2];

	/* payload in pages: its end is not behind the headers */
	if (skb->data_len || skb->len < sizeof(end))
		return 0;
	if (bpf_probe_read_kernel(end, sizeof(end), skb->head + skb->tail - sizeof(end)))
		return 0;
	return end[0] == bpf_cpu_to_be64(COOKIE_MAGIC) ? bpf_be64_to_cpu(end[1]) : 0;
}

static __always_inline bool end_matches(__be32 want, __be16 port, __be32 address, __be16 number)
{
	return (!want || want == address) && (!port || port == number);
}

static __always_inline bool flow_matches(const struct tuple *tuple)
{
	const struct tuple *want = &trace_filter.flow;

	if (want->protocol && want->protocol != tuple->protocol)
		return false;
	if (end_matches(want->source, want->source_port, tuple->source, tuple->source_port) &&
	    end_matches(want->destination, want->destination_port, tuple->destination,
			tuple->destination_port))
		return true;
	return end_matches(want->source, want->source_port, tuple->destination,
			   tuple->destination_port) &&
	       end_matches(want->destination, want->destination_port, tuple->source,
			   tuple->source_port);
}

static __always_inline bool contents_match(const struct sk_buff *skb, const struct inner *inner)
{
	if (trace_filter.mode == MODE_COOKIE)
		return read_cookie(skb) == trace_filter.cookie;
	/* other buffers (netlink's) may hold anything where a packet has its network header */
	if (!inner->id || skb->protocol != bpf_htons(ETH_P_IP))
		return false;
	return flow_matches(&inner->tuple) || bpf_map_lookup_elem(&trace_flows, &inner->tuple);
}

/* A buffer seen before is believed only while it holds the same IP packet. */
static __always_inline bool buffer_known(const struct sk_buff *skb, const struct inner *inner)
{
	u64 key = (u64)skb;
	u32 *id = bpf_map_lookup_elem(&trace_buffers, &key);
	u8 one = 1;

	if (!id || *id != inner->id)
		return false;
	if (trace_filter.mode == MODE_TUPLE)
		bpf_map_update_elem(&trace_flows, &inner->tuple, &one, BPF_ANY);
	return true;
}

static __always_inline bool in_lab(u32 netns)
{
	return bpf_map_lookup_elem(&trace_netns, &netns) != NULL;
}

/* The same addresses may be under way in another lab; a cookie is nobody else's. */
static __always_inline bool may_begin(u32 netns)
{
	return trace_filter.mode == MODE_COOKIE || (netns && in_lab(netns));
}

/* True if this packet is to be recorded. @netns: where it is, 0 if that is not known. @entry: a
 * packet may be seen here first; elsewhere nobody is looked at unless one is under way.
 */
static __always_inline bool wanted(const struct sk_buff *skb, u32 netns, bool entry)
{
	u64 now, key = (u64)skb;
	struct inner inner;

	if (trace_filter.mode == MODE_OFF)
		return false;
	if (trace_filter.mode == MODE_ALL)
		return in_lab(netns);
	now = bpf_jiffies64();
	if (now > trace_window) {
		if (!entry || !netns || (trace_filter.entry_netns && trace_filter.entry_netns != netns))
			return false;
		if (!trace_filter.entry_netns && !in_lab(netns))
			return false;
	}
	read_inner((u64)skb->head + skb->network_header, &inner);
	if (!(contents_match(skb, &inner) && may_begin(netns)) && !buffer_known(skb, &inner))
		return false;
	bpf_map_update_elem(&trace_buffers, &key, &inner.id, BPF_ANY);
	trace_window = now + trace_filter.linger_jiffies;
	return true;
}

static __always_inline void forget(const struct sk_buff *skb)
{
	u64 key = (u64)skb;

	if (trace_filter.mode == MODE_COOKIE || trace_filter.mode == MODE_TUPLE)
		bpf_map_delete_elem(&trace_buffers, &key);
}

#endif
