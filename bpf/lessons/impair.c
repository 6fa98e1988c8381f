// SPDX-License-Identifier: GPL-2.0
/*
 * Lose exactly the packets you are told to, and write down every segment.
 *
 *   sender:   tc egress   impair_sent       logs, with the sending socket's state
 *   receiver: tc ingress  impair_received   judges, logs, then drops or copies
 *
 * A packet has to be lost at the *receiver's* ingress. Dropping it at the sender's egress tells the
 * sending TCP at once (local congestion: CWR, immediate resend, no retransmission counted), which
 * is not what losing a packet in a network looks like.
 *
 * A tc program cannot hold a packet back: delay, reordering and rate need the TAP wire.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define MAX_RULES 8
#define MAX_SEGMENTS 16384
#define ORDINAL_WORDS 16	/* ordinals 1 to 1024 */
#define COPY_MARK 0x1ab0c0b1	/* on the copies we made: they are not judged again */

enum hook { SENT, RECEIVED };
enum fate { DELIVERED, DROPPED, DUPLICATED, COPY };
enum kind { ANY, DATA, PURE_ACK, WINDOW_UPDATE, SYN, SYN_ACK, FIN, RST, DATAGRAM, ICMP };

/* One observation of one packet at one end; lab/wire/log.py reads it. */
struct segment {
	__u64 time_ns;
	__u64 cookie;		/* of the sending socket; 0 at the receiver, which has none yet */
	__u32 bytes;
	__u32 ifindex;
	__u8 hook;
	__u8 fate;
	__u8 captured;
	__u8 has_socket;
	__u32 cwnd;		/* segments, like the five that follow */
	__u32 ssthresh;
	__u32 packets_out;
	__u32 retrans_out;
	__u32 sacked_out;
	__u32 lost_out;
	__u32 srtt_us;
	__u32 snd_una;
	__u32 snd_nxt;
	__u32 rcv_nxt;
	__u8 head[188];
};
_Static_assert(sizeof(struct segment) == 256, "lab/wire/log.py reads 256 bytes");

/* One line of the script; the two counters at the end are ours, the rest is the reader's. */
struct rule {
	__u32 ifindex;		/* the receiver's device: which direction */
	__u8 fate;		/* 0: no rule here */
	__u8 kind;
	__u16 copies;
	__u32 has_first_byte;
	__u32 first_byte;
	__u32 longer_than;
	__u32 every;		/* without ordinals: every packet */
	__u64 ordinals[ORDINAL_WORDS];
	__u32 seen;
	__u32 acted;
};
_Static_assert(sizeof(struct rule) == 160, "lab/wire/ingress.py writes 160 bytes");

/* What a packet's headers say, host byte order. */
struct headers {
	__u32 seq;
	__u32 ack;
	__u32 ip_bytes;
	__u32 length;
	__u32 ports;
	__u16 window;
	__u8 protocol;
	__u8 flags;
};

struct flow_key {
	__u32 ifindex;
	__u32 ports;
};

struct flow {
	__u32 first_seq;
	__u32 last_ack;
	__u32 last_window;
	__u32 acked;
};

/* Written here, read by the recorder through mmap; a full log stops, it does not wrap. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_SEGMENTS);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct segment);
} segments SEC(".maps");

/* How many observations there were; more than MAX_SEGMENTS means the rest is missing. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} observed SEC(".maps");

/* Written by lab/wire/ingress.py, which reads the counters back at the end. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_RULES);
	__type(key, __u32);
	__type(value, struct rule);
} rules SEC(".maps");

/* What a direction of a connection said last; written and read here. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct flow_key);
	__type(value, struct flow);
} flows SEC(".maps");

static __always_inline int load_tcp(struct __sk_buff *skb, __u32 at, struct headers *h)
{
	struct tcphdr tcp;
	__u8 flags;

	if (bpf_skb_load_bytes(skb, at, &tcp, sizeof(tcp)) < 0 ||
	    bpf_skb_load_bytes(skb, at + 13, &flags, 1) < 0)
		return -1;
	h->seq = bpf_ntohl(tcp.seq);
	h->ack = bpf_ntohl(tcp.ack_seq);
	h->window = bpf_ntohs(tcp.window);
	h->flags = flags;
	h->ports = (__u32)bpf_ntohs(tcp.source) << 16 | bpf_ntohs(tcp.dest);
	h->length = h->ip_bytes - (at - ETH_HLEN) - tcp.doff * 4;
	return 0;
}

/* Read the headers; anything that is not whole is left with protocol 0 and matches only ANY. */
static __always_inline void load_headers(struct __sk_buff *skb, struct headers *h)
{
	struct iphdr ip;

	if (skb->protocol != bpf_htons(ETH_P_IP) ||
	    bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) < 0)
		return;
	h->ip_bytes = bpf_ntohs(ip.tot_len);
	if (ip.frag_off & bpf_htons(0x1fff))
		return;
	if (ip.protocol == IPPROTO_TCP && load_tcp(skb, ETH_HLEN + ip.ihl * 4, h) < 0)
		return;
	h->protocol = ip.protocol;
}

static __always_inline enum kind kind_of(const struct headers *h)
{
	if (h->protocol == IPPROTO_UDP)
		return DATAGRAM;
	if (h->protocol != IPPROTO_TCP)
		return h->protocol == IPPROTO_ICMP ? ICMP : ANY;
	if (h->flags & 4)
		return RST;
	if (h->flags & 2)
		return h->flags & 16 ? SYN_ACK : SYN;
	if (h->length)
		return DATA;
	return h->flags & 1 ? FIN : PURE_ACK;
}

/* A pure ACK that repeats the last acknowledgement number with a larger window. */
static __always_inline int opens_window(const struct headers *h, const struct flow *flow)
{
	return flow && flow->acked && flow->last_ack == h->ack && h->window > flow->last_window;
}

static __always_inline int satisfies(const struct rule *rule, const struct headers *h,
				     const struct flow *flow)
{
	enum kind kind = kind_of(h);

	if (rule->longer_than && h->ip_bytes <= rule->longer_than)
		return 0;
	if (rule->kind == WINDOW_UPDATE)
		return kind == PURE_ACK && opens_window(h, flow);
	if (rule->kind == FIN)
		return h->protocol == IPPROTO_TCP && h->flags & 1;
	if (rule->kind != ANY && rule->kind != kind)
		return 0;
	if (rule->has_first_byte)
		return flow && h->seq - flow->first_seq == rule->first_byte;
	return 1;
}

/* Count the packet for this rule; true if it is one of the rule's ordinals. */
static __always_inline int acts(struct rule *rule)
{
	/* packets of one direction come one after the other: no atomic needed for our own count */
	__u32 nth = rule->seen++;
	int chosen = rule->every;

	if (!chosen && nth < 64 * ORDINAL_WORDS)
		chosen = rule->ordinals[nth / 64 & (ORDINAL_WORDS - 1)] >> (nth % 64) & 1;
	rule->acted += chosen;
	return chosen;
}

/* Every rule counts the packet, whatever another rule decides; a drop wins. */
static __always_inline enum fate judge(struct __sk_buff *skb, const struct headers *h,
				       const struct flow *flow, __u32 *copies)
{
	enum fate fate = DELIVERED;

	for (__u32 i = 0; i < MAX_RULES; i++) {
		__u32 key = i;
		struct rule *rule = bpf_map_lookup_elem(&rules, &key);

		if (!rule || !rule->fate || rule->ifindex != skb->ifindex)
			continue;
		if (!satisfies(rule, h, flow) || !acts(rule))
			continue;
		if (fate != DROPPED)
			fate = rule->fate;
		*copies = rule->copies;
	}
	return fate;
}

static __always_inline void remember(const struct flow_key *key, const struct headers *h,
				     const struct flow *before)
{
	struct flow now = {};

	if (before)
		now = *before;
	if (h->flags & 2)
		now.first_seq = h->seq;
	if (h->flags & 16) {
		now.last_ack = h->ack;
		now.last_window = h->window;
		now.acked = 1;
	}
	bpf_map_update_elem(&flows, key, &now, BPF_ANY);
}

static __always_inline void add_socket_state(struct __sk_buff *skb, struct segment *s)
{
	struct bpf_sock *sk = skb->sk;
	struct bpf_tcp_sock *tp;

	if (!sk)
		return;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return;
	tp = bpf_tcp_sock(sk);
	if (!tp)
		return;
	s->has_socket = 1;
	s->cwnd = tp->snd_cwnd;
	s->ssthresh = tp->snd_ssthresh;
	s->packets_out = tp->packets_out;
	s->retrans_out = tp->retrans_out;
	s->sacked_out = tp->sacked_out;
	s->lost_out = tp->lost_out;
	s->srtt_us = tp->srtt_us >> 3;	/* the kernel keeps eight times the average */
	s->snd_una = tp->snd_una;
	s->snd_nxt = tp->snd_nxt;
	s->rcv_nxt = tp->rcv_nxt;
}

static __always_inline void write_down(struct __sk_buff *skb, enum hook hook, enum fate fate)
{
	__u32 first = 0, *next = bpf_map_lookup_elem(&observed, &first), key;
	struct segment *s;
	__u32 length = skb->len;

	if (!next)
		return;
	key = __sync_fetch_and_add(next, 1);
	s = bpf_map_lookup_elem(&segments, &key);
	if (!s)
		return;
	s->time_ns = bpf_ktime_get_ns();
	s->bytes = length;
	s->ifindex = skb->ifindex;
	s->hook = hook;
	s->fate = fate;
	if (hook == SENT) {
		s->cookie = bpf_get_socket_cookie(skb);
		add_socket_state(skb, s);
	}
	if (length > sizeof(s->head))
		length = sizeof(s->head);
	/* The verifier must see that the length is neither 0 nor above the room, and that of Linux
	 * 6.1 learns nothing from "not 0": hence one less, compared where it cannot be folded. */
	length--;
	asm volatile("" : "+r"(length));
	if (length < sizeof(s->head) && bpf_skb_load_bytes(skb, 0, s->head, length + 1) == 0)
		s->captured = length + 1;
}

SEC("tc/impair_sent")
int impair_sent(struct __sk_buff *skb)
{
	write_down(skb, SENT, DELIVERED);
	return TC_ACT_OK;
}

SEC("tc/impair_received")
int impair_received(struct __sk_buff *skb)
{
	struct headers h = {};
	struct flow_key key = { .ifindex = skb->ifindex };
	struct flow *flow;
	enum fate fate;
	__u32 copies = 0;

	/* 1. a copy we made ourselves goes straight through */
	if (skb->mark == COPY_MARK) {
		skb->mark = 0;
		write_down(skb, RECEIVED, COPY);
		return TC_ACT_OK;
	}
	/* 2. what is it, and what did this direction of its connection say before? */
	load_headers(skb, &h);
	key.ports = h.ports;
	flow = h.protocol == IPPROTO_TCP ? bpf_map_lookup_elem(&flows, &key) : 0;
	/* 3. judge, remember, write down */
	fate = judge(skb, &h, flow, &copies);
	if (h.protocol == IPPROTO_TCP)
		remember(&key, &h, flow);
	write_down(skb, RECEIVED, fate);
	/* 4. carry it out */
	if (fate == DROPPED)
		return TC_ACT_SHOT;
	if (fate == DUPLICATED) {
		skb->mark = COPY_MARK;
		for (__u32 i = 0; i < 8 && i < copies; i++)
			bpf_clone_redirect(skb, skb->ifindex, BPF_F_INGRESS);
		skb->mark = 0;
	}
	return TC_ACT_OK;
}

char _license[] SEC("license") = "GPL";
