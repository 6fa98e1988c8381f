/* SPDX-License-Identifier: GPL-2.0 */
/* What sockets do with a packet: the look-up of its socket, TCP's own reception, the reader.
 *
 * Part of packet.bpf.c: the programs here know the packet by the processor it is on.
 */
#ifndef LAB_PROBES_SOCKET_H
#define LAB_PROBES_SOCKET_H

#include "sight.h"

#define READER_NAME_BYTES 16

/* Sockets that were woken for a wanted packet: address -> buffer. The reader comes later, from
 * another place, and the buffer may be gone by then.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, u64);
	__type(value, u64);
} trace_sockets SEC(".maps");

static __always_inline void expect_reader(const struct sock *sk, const struct sk_buff *skb)
{
	u64 key = (u64)sk, value = (u64)skb;

	bpf_map_update_elem(&trace_sockets, &key, &value, BPF_ANY);
}

/* The system call of the application returns with the data. */
SEC("tp_btf/sock_recv_length")
int BPF_PROG(on_socket_read, struct sock *sk, int got, int flags)
{
	u64 key = (u64)sk, *skb;
	struct record *record;

	if (got <= 0 || !may_be_wanted(true))
		return 0;
	skb = bpf_map_lookup_elem(&trace_sockets, &key);
	if (!skb)
		return 0;
	record = record_begin(KIND_SOCKET_READ);
	if (record) {
		record->skb = *skb;
		record->netns = sk->__sk_common.skc_net.net->ns.inum;
		record->verdict = got;
		record->arg = sk->__sk_common.skc_num;
		record->hash = bpf_get_current_pid_tgid() >> 32;
		bpf_get_current_comm(record->packet, READER_NAME_BYTES);
		record->captured = READER_NAME_BYTES;
		record_end(record);
	}
	bpf_map_delete_elem(&trace_sockets, &key);
	return 0;
}

/* The transport asks whose packet this is; established connections are found without asking. */
SEC("sk_lookup")
int on_socket_lookup(struct bpf_sk_lookup *ctx)
{
	struct record *record;
	u64 skb = recent_buffer();

	if (!skb)
		return SK_PASS;
	record = record_begin(KIND_SOCKET_LOOKUP);
	if (!record)
		return SK_PASS;
	record->skb = skb;
	record->hash = ctx->remote_ip4;
	record->mark = ctx->local_ip4;
	record->arg = (u64)bpf_ntohs(ctx->remote_port) << 16 | ctx->local_port;
	record->verdict = ctx->protocol;
	record_end(record);
	return SK_PASS;
}

/* A segment of an established connection, also one without data, which wakes nobody. */
SEC("tp_btf/tcp_probe")
int BPF_PROG(on_tcp_segment, struct sock *sk, struct sk_buff *skb)
{
	u32 netns = sk->__sk_common.skc_net.net->ns.inum;
	struct record *record;

	if (!wanted(skb, netns, false))
		return 0;
	record = record_begin(KIND_TCP_SEGMENT);
	if (!record)
		return 0;
	record->netns = netns;
	fill_buffer(record, skb);
	record->arg = sk->__sk_common.skc_num;
	record_stack(ctx, record);
	record_end(record);
	return 0;
}

/* A connection goes from state to state because of the packet that is here. */
SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(on_tcp_state, const struct sock *sk, int before, int now)
{
	struct record *record;
	u64 skb = recent_buffer();

	if (!skb)
		return 0;
	record = record_begin(KIND_TCP_STATE);
	if (!record)
		return 0;
	record->skb = skb;
	record->netns = sk->__sk_common.skc_net.net->ns.inum;
	record->arg = sk->__sk_common.skc_num;
	record->hash = bpf_ntohs(sk->__sk_common.skc_dport);
	record->verdict = before << 8 | now;
	record_stack(ctx, record);
	record_end(record);
	return 0;
}

#endif
