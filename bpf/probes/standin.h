/* SPDX-License-Identifier: GPL-2.0 */
/* Programs that stand in where a kernel has no netfilter programs: at entry (fentry) or return
 * (fexit) of the functions that such programs would have been called from.
 *
 * Part of packet.bpf.c. A hook without any chain is not called at all, so nobody tells of it here;
 * what is on the way with or without chains has a program of its own.
 */
#ifndef LAB_PROBES_STANDIN_H
#define LAB_PROBES_STANDIN_H

#define NFPROTO_IPV4 2
#define NFPROTO_NETDEV 5
#define NF_GO_ON 1	/* nf_hook_slow(): every chain let the packet pass */

/* A record about a function that has the packet, in the namespace where that runs. */
static __always_inline struct record *inside(void *ctx, const struct sk_buff *skb, u32 netns,
					     bool entry)
{
	struct record *record;

	if (!may_be_wanted(entry) || !wanted(skb, netns, entry))
		return NULL;
	record = record_begin(KIND_FUNCTION);
	if (!record)
		return NULL;
	record->location = bpf_get_func_ip(ctx);
	record->netns = netns;
	record->ifindex = skb->dev ? skb->dev->ifindex : 0;
	fill_buffer(record, skb);
	return record;
}

/* The packet begins here: it has a socket and a route, and is in no device yet. */
SEC("fentry/__ip_local_out")
int BPF_PROG(on_local_out, struct net *net, struct sock *sk, struct sk_buff *skb)
{
	struct record *record = inside(ctx, skb, net->ns.inum, true);
	const struct dst_entry *route;
	struct ip_head *header;

	if (!record)
		return 0;
	/* The function itself writes the length into the header, which is the packet's from then on. */
	header = (void *)record->packet;
	if (record->link == LINK_IP)
		header->length = bpf_htons(record->len);
	route = (void *)(skb->_skb_refdst & ~1UL);
	if (route)
		record->ifindex = BPF_CORE_READ(route, dev, ifindex);
	record->arg = NF_LOCAL_OUT;
	finish(record);
	return 0;
}

/* Also the first sight of a packet that a program redirected into the device. */
SEC("fentry/ip_rcv_core")
int BPF_PROG(on_ip_rcv, struct sk_buff *skb)
{
	struct record *record = inside(ctx, skb, netns_of(skb->dev), false);

	if (!record)
		return 0;
	record->config = receive_config(skb);
	finish(record);
	return 0;
}

/* With the route that the packet has got since, and whether its socket was found early. */
SEC("fentry/ip_local_deliver")
int BPF_PROG(on_local_deliver, struct sk_buff *skb)
{
	struct record *record = inside(ctx, skb, netns_of(skb->dev), false);
	const struct dst_entry *route;

	if (!record)
		return 0;
	route = (void *)(skb->_skb_refdst & ~1UL);
	if (route)
		record->arg = (u64)BPF_CORE_READ(route, input);
	record->verdict = skb->sk != NULL;
	record->reason = policy_used(skb->dev->nd_net.net);
	finish(record);
	return 0;
}

SEC("fentry/nf_hook_slow")
int BPF_PROG(on_chain, struct sk_buff *skb, struct nf_hook_state *state)
{
	struct record *record;

	if (state->pf == NFPROTO_IPV4) {
		record = netfilter_seen(state, skb, KIND_NETFILTER_FIRST);
		if (record)
			finish(record);
	} else if (state->pf == NFPROTO_NETDEV) {
		record = inside(ctx, skb, state->net->ns.inum, false);
		if (!record)
			return 0;
		record->arg = state->hook;
		finish(record);
	}
	return 0;
}

/* Told only if the buffer is the caller's still; who dropped it frees it with a reason. */
SEC("fexit/nf_hook_slow")
int BPF_PROG(on_chain_over, struct sk_buff *skb, struct nf_hook_state *state, void *entries,
	     unsigned int start, int verdict)
{
	struct record *record;

	if (verdict != NF_GO_ON || state->pf != NFPROTO_IPV4)
		return 0;
	record = netfilter_seen(state, skb, KIND_NETFILTER_LAST);
	if (record)
		finish(record);
	return 0;
}

#endif
