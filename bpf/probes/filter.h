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
	u32 generation;		/* counts the filters set */
	u32 translated;		/* trace_flows holds something; set by the programs */
	u32 encrypted;		/* the same of trace_secrets */
} trace_filter;

/* Until when (in jiffies) a wanted packet may be under way; before the first one: never. */
u64 trace_window;

/* Set before loading: programs that are attached and do nothing, to measure what that alone costs. */
const volatile u8 nothing_wanted = 0;

/* UDP port whose payload is an Ethernet frame behind eight bytes of VXLAN. */
const volatile u16 vxlan_port = 8472;

/* Inode numbers of the lab's network namespaces. Writer: collector. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, u32);
	__type(value, u8);
} trace_netns SEC(".maps");

/* Buffers of wanted packets, with the IP identification that tells a recycled address. A buffer's
 * place follows from its address; two that want the same place only lose the bridge of the first.
 */
struct seen_buffer {
	u64 skb;
	u32 id;
	u32 generation;		/* of the filter it was wanted by */
};

#define BUFFER_PLACES 8192
#define BUFFER_SHIFT 8		/* the kernel's buffers begin at multiples of 256 bytes */

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, BUFFER_PLACES);
	__type(key, u32);
	__type(value, struct seen_buffer);
} trace_buffers SEC(".maps");

/* Flows that a wanted packet has been translated to. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct tuple);
	__type(value, u8);
} trace_flows SEC(".maps");

/* What wanted packets became when they were encrypted: nothing inside can be read, but no other
 * packet has the same number under the same security association.
 */
struct secret {
	__be32 destination;
	__be32 spi;
	__be32 sequence;
	u32 generation;		/* of the filter it was wanted by */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct secret);
	__type(value, u8);
} trace_secrets SEC(".maps");

struct inner {
	struct tuple tuple;	/* ESP: its SPI in place of the ports */
	u32 id;			/* IP identification + 1, so that 0 means: no IP packet */
	__be32 sequence;	/* of an ESP packet under its SPI */
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

/* An IPv4 header without options and the ports behind it: one read for nearly every packet. */
struct ip_start {
	struct ip_head ip;
	__be16 ports[4];
};

/* Reads the IPv4 header at @at and the ports behind it; returns the address of the transport
 * header, 0 if this is no IPv4 packet.
 */
static __always_inline u64 read_ip(u64 at, struct ip_start *start)
{
	u32 header;

	if (bpf_probe_read_kernel(start, sizeof(*start), (void *)at) ||
	    (start->ip.version_length >> 4) != 4)
		return 0;
	header = (start->ip.version_length & 15) * 4;
	at += header;
	if (header != sizeof(start->ip) &&
	    bpf_probe_read_kernel(&start->ports, sizeof(start->ports), (void *)at))
		return 0;
	return at;
}

/* The innermost IPv4 packet behind @at: one level of VXLAN is looked through. */
static __always_inline void read_inner(u64 at, struct inner *inner)
{
	struct ip_start outer, behind, *start = &outer;
	u64 transport = read_ip(at, &outer);

	/* older verifiers want all of a map's key written, also where nobody gets to it */
	__builtin_memset(inner, 0, sizeof(*inner));
	if (!transport)
		return;
	/* the values are taken out of the right one alone: to copy them again, in other widths, just
	 * after they were stored makes the processor wait
	 */
	if (outer.ip.protocol == PROTO_UDP && outer.ports[1] == bpf_htons(vxlan_port) &&
	    read_ip(transport + 16 + ETHERNET_HEADER, &behind))
		start = &behind;
	inner->id = start->ip.id + 1;
	inner->tuple.source = start->ip.source;
	inner->tuple.destination = start->ip.destination;
	inner->tuple.protocol = start->ip.protocol;
	inner->tuple.source_port = start->ports[0];
	inner->tuple.destination_port = start->ports[1];
	inner->sequence = start->ports[2] | (u32)start->ports[3] << 16;
	if (start->ip.protocol == PROTO_ICMP) {
		inner->tuple.source_port = start->ports[2];
		inner->tuple.destination_port = start->ports[2];
	}
}

/* Where the network header is: a buffer just built of an XDP frame only knows where its data is. */
static __always_inline u32 network_offset(const struct sk_buff *skb)
{
	return skb->network_header ? skb->network_header : (u32)(skb->data - skb->head);
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

static __always_inline bool of_the_flow(const struct sk_buff *skb, const struct inner *inner)
{
	/* other buffers (netlink's) may hold anything where a packet has its network header */
	if (!inner->id || skb->protocol != bpf_htons(ETH_P_IP))
		return false;
	return flow_matches(&inner->tuple) ||
	       (trace_filter.translated && bpf_map_lookup_elem(&trace_flows, &inner->tuple));
}

static __always_inline struct seen_buffer *place_of(const struct sk_buff *skb)
{
	u64 distance = (u64)skb;
	u32 place;

	/* The verifier lets nobody calculate with an address, but takes the distance of two for a
	 * number; the compiler would narrow it to 32 bits, which it does not.
	 */
	asm("%0 -= %1" : "+r"(distance) : "r"(&trace_filter));
	place = (distance >> BUFFER_SHIFT) & (BUFFER_PLACES - 1);
	return bpf_map_lookup_elem(&trace_buffers, &place);
}

static __always_inline bool buffer_seen(const struct seen_buffer *seen, const struct sk_buff *skb)
{
	return seen && seen->skb == (u64)skb && seen->generation == trace_filter.generation;
}

static __always_inline void know_buffer(struct seen_buffer *seen, const struct sk_buff *skb, u32 id)
{
	if (!seen)
		return;
	seen->skb = (u64)skb;
	seen->id = id;
	seen->generation = trace_filter.generation;
}

static __always_inline bool in_lab(u32 netns)
{
	return bpf_map_lookup_elem(&trace_netns, &netns) != NULL;
}

/* What can be said without touching the packet: nobody is looked for, or not here. @entry: a
 * packet may be seen here first; elsewhere nobody is looked at unless one is under way.
 */
static __always_inline bool may_be_wanted(bool entry)
{
	if (nothing_wanted || trace_filter.mode == MODE_OFF)
		return false;
	return entry || trace_filter.mode == MODE_ALL || bpf_jiffies64() <= trace_window;
}

/* The same where a packet may be seen first: while none is under way, only where it begins. Programs
 * ask this before they call what is long: a stranger should cost a cache line of code.
 */
static __always_inline bool may_begin_in(u32 netns)
{
	if (nothing_wanted || trace_filter.mode == MODE_OFF)
		return false;
	return bpf_jiffies64() <= trace_window || !trace_filter.entry_netns ||
	       trace_filter.entry_netns == netns;
}

/* Whether this is what a wanted packet became when it was encrypted. */
static __always_inline bool is_secret(const struct inner *inner)
{
	struct secret secret;

	if (!trace_filter.encrypted || !inner->id || inner->tuple.protocol != PROTO_ESP)
		return false;
	secret.destination = inner->tuple.destination;
	secret.spi = inner->tuple.source_port | (u32)inner->tuple.destination_port << 16;
	secret.sequence = inner->sequence;
	secret.generation = trace_filter.generation;
	return bpf_map_lookup_elem(&trace_secrets, &secret) != NULL;
}

static __always_inline bool has_cookie(const struct sk_buff *skb, struct seen_buffer *seen)
{
	struct inner inner = {};
	bool found = read_cookie(skb) == trace_filter.cookie;

	/* most packets are strangers: that is clear without a look at their headers */
	if (!found && !buffer_seen(seen, skb) && !trace_filter.encrypted)
		return false;
	read_inner((u64)skb->head + network_offset(skb), &inner);
	found = found || is_secret(&inner);
	/* a buffer seen before is believed only while it holds the same IP packet */
	if (!found && !(buffer_seen(seen, skb) && seen->id == inner.id))
		return false;
	know_buffer(seen, skb, inner.id);
	return true;
}

/* A wanted packet has other addresses now: so will the answers to it, until they are turned back. */
static __always_inline void learn_flow(const struct tuple *now)
{
	struct tuple answer = {
		.source = now->destination,
		.destination = now->source,
		.source_port = now->destination_port,
		.destination_port = now->source_port,
		.protocol = now->protocol,
	};
	u8 one = 1;

	bpf_map_update_elem(&trace_flows, now, &one, BPF_ANY);
	bpf_map_update_elem(&trace_flows, &answer, &one, BPF_ANY);
	trace_filter.translated = 1;
}

static __always_inline bool in_flow(const struct sk_buff *skb, struct seen_buffer *seen, u32 netns)
{
	struct inner inner = {};
	bool found;

	read_inner((u64)skb->head + network_offset(skb), &inner);
	found = of_the_flow(skb, &inner) || is_secret(&inner);
	if (buffer_seen(seen, skb) && seen->id == inner.id) {
		if (!found)
			learn_flow(&inner.tuple);
		return true;
	}
	/* the same addresses may be under way in another lab; a cookie is nobody else's */
	if (!found || !netns || !in_lab(netns))
		return false;
	know_buffer(seen, skb, inner.id);
	return true;
}

/* True if this packet is to be recorded. @netns: where it is, 0 if that is not known. */
static __always_inline bool wanted(const struct sk_buff *skb, u32 netns, bool entry)
{
	struct seen_buffer *seen;
	u64 now;

	if (!may_be_wanted(entry))
		return false;
	if (trace_filter.mode == MODE_ALL)
		return in_lab(netns);
	now = bpf_jiffies64();
	if (now > trace_window) {
		if (!netns || (trace_filter.entry_netns && trace_filter.entry_netns != netns))
			return false;
		if (trace_filter.mode == MODE_COOKIE && !trace_filter.entry_netns && !in_lab(netns))
			return false;
	}
	seen = place_of(skb);
	if (trace_filter.mode == MODE_COOKIE ? !has_cookie(skb, seen) : !in_flow(skb, seen, netns))
		return false;
	trace_window = now + trace_filter.linger_jiffies;
	return true;
}

static __always_inline void forget(const struct sk_buff *skb)
{
	struct seen_buffer *seen = place_of(skb);

	if (buffer_seen(seen, skb))
		seen->skb = 0;
}

#endif
