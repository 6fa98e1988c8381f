// SPDX-License-Identifier: GPL-2.0
/*
 * What TCP itself says about the sockets of two hosts, from the kernel's own tracepoints.
 *
 *   tcp_probe             each segment TCP receives, before it is worked on
 *   tcp_retransmit_skb    each segment sent again, whatever the reason
 *   tcp_cong_state_set    Open, Disorder, CWR, Recovery, Loss
 *   inet_sock_set_state   ESTABLISHED, FIN_WAIT1, ... TIME_WAIT, CLOSE
 *
 * BTF-typed raw tracepoints need no tracefs, and are gone when their descriptors are.
 */
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define MAX_EVENTS 16384

enum what { PROBE, RETRANSMIT, CONGESTION, STATE };

/* The parts of the kernel's types that are read here; offsets come from the running kernel. */
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct ns_common {
	unsigned int inum;
};

struct net {
	struct ns_common ns;
};

typedef struct {
	struct net *net;
} possible_net_t;

struct sock_common {
	__u16 skc_num;
	__be16 skc_dport;
	possible_net_t skc_net;
};

struct sock {
	struct sock_common __sk_common;
};

struct tcp_sock {
	__u32 snd_cwnd;
	__u32 snd_ssthresh;
	__u32 snd_wnd;
	__u32 rcv_wnd;
	__u32 srtt_us;
	__u32 packets_out;
	__u32 snd_una;
	__u32 snd_nxt;
};
#pragma clang attribute pop

/* lab/wire/events.py reads it. */
struct tcp_event {
	__u64 time_ns;
	__u64 cookie;
	__u8 what;
	__u8 before;
	__u8 after;
	__u8 pad;
	__u16 local_port;
	__u16 remote_port;
	__u32 netns;
	__u32 cwnd;		/* segments */
	__u32 ssthresh;
	__u32 snd_wnd;		/* bytes */
	__u32 rcv_wnd;
	__u32 srtt_us;
	__u32 packets_out;
	__u32 snd_una;
	__u32 snd_nxt;
	__u32 spare;
};
_Static_assert(sizeof(struct tcp_event) == 64, "lab/wire/events.py reads 64 bytes");

/* The two hosts; sockets of every other namespace are none of our business. */
const volatile __u32 client_netns;
const volatile __u32 server_netns;

/* Written here, read through mmap; a full log stops. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_EVENTS);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct tcp_event);
} tcp_events SEC(".maps");

/* How many there were. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} happened SEC(".maps");

/* Returns the next line of the log with everything but the kind filled in, or null. */
static __always_inline struct tcp_event *note(struct sock *sk, int with_tcp)
{
	__u32 first = 0, key, netns = sk->__sk_common.skc_net.net->ns.inum;
	__u32 *next = bpf_map_lookup_elem(&happened, &first);
	struct tcp_event *event;

	if (!next || (netns != client_netns && netns != server_netns))
		return 0;
	key = __sync_fetch_and_add(next, 1);
	event = bpf_map_lookup_elem(&tcp_events, &key);
	if (!event)
		return 0;
	event->time_ns = bpf_ktime_get_ns();
	event->cookie = bpf_get_socket_cookie(sk);
	event->local_port = sk->__sk_common.skc_num;
	event->remote_port = bpf_ntohs(sk->__sk_common.skc_dport);
	event->netns = netns;
	if (with_tcp) {
		struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);

		if (!tp)
			return event;
		event->cwnd = tp->snd_cwnd;
		event->ssthresh = tp->snd_ssthresh;
		event->snd_wnd = tp->snd_wnd;
		event->rcv_wnd = tp->rcv_wnd;
		event->srtt_us = tp->srtt_us >> 3;
		event->packets_out = tp->packets_out;
		event->snd_una = tp->snd_una;
		event->snd_nxt = tp->snd_nxt;
	}
	return event;
}

SEC("tp_btf/tcp_probe")
int on_probe(__u64 *arguments)
{
	struct tcp_event *event = note((struct sock *)arguments[0], 1);

	if (event)
		event->what = PROBE;
	return 0;
}

SEC("tp_btf/tcp_retransmit_skb")
int on_retransmit(__u64 *arguments)
{
	struct tcp_event *event = note((struct sock *)arguments[0], 1);

	if (event)
		event->what = RETRANSMIT;
	return 0;
}

SEC("tp_btf/tcp_cong_state_set")
int on_congestion_state(__u64 *arguments)
{
	struct tcp_event *event = note((struct sock *)arguments[0], 1);

	if (event) {
		event->what = CONGESTION;
		event->after = arguments[1];
	}
	return 0;
}

SEC("tp_btf/inet_sock_set_state")
int on_state(__u64 *arguments)
{
	struct tcp_event *event = note((struct sock *)arguments[0], 0);

	if (event) {
		event->what = STATE;
		event->before = arguments[1];
		event->after = arguments[2];
	}
	return 0;
}

char _license[] SEC("license") = "GPL";
