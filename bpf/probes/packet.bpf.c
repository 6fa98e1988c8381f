// SPDX-License-Identifier: GPL-2.0
/* Tracepoints and hook programs that watch a packet on a kernel without function probes.
 *
 * Each program: is the packet wanted (filter.h), then one record (record.h) in its processor's lane.
 * The collector loads those whose tracepoint the running kernel has.
 */
#include "policy.h"
#include "sight.h"

char LICENSE[] SEC("license") = "GPL";

#define AF_INET 2
#define AF_PACKET 17
#define TCP_LISTEN 10
#define TCX_NEXT (-1)
#define NF_ACCEPT 1
#define CGROUP_PASS 1
#define NF_LOCAL_OUT 3
#define CT_INFO_MASK 7UL
#define CT_KNOWN 8

/* The packet last seen on this processor: events that name no buffer belong to it. */
struct current {
	u64 skb;
	u64 ns;
	u64 gro;	/* what GRO was given: others may pass before it says what it did */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct current);
} trace_current SEC(".maps");

/* An event without a buffer is told only this soon after the packet was seen here: longer where
 * the processor itself is emulated.
 */
const volatile u64 recent_ns = 1000000;

static __always_inline void remember(const struct record *record)
{
	u32 zero = 0;
	struct current *current = bpf_map_lookup_elem(&trace_current, &zero);

	if (current) {
		current->skb = record->skb;
		current->ns = record->ns;
	}
}

static __always_inline u64 recent_buffer(void)
{
	u32 zero = 0;
	struct current *current;

	/* a route may be asked for before the packet is: the flow of the question tells then */
	if (!may_be_wanted(false))
		return 0;
	current = bpf_map_lookup_elem(&trace_current, &zero);
	if (!current || !current->skb || bpf_ktime_get_ns() - current->ns > recent_ns)
		return 0;
	return current->skb;
}

#include "socket.h"

static __always_inline void finish(struct record *record)
{
	remember(record);
	record_end(record);
}

#include "ipsec.h"

SEC("tp_btf/napi_poll")
int BPF_PROG(on_napi_poll, struct napi_struct *napi, int work, int budget)
{
	struct record *record;
	u64 skb = recent_buffer();

	if (!skb)
		return 0;
	record = record_begin(KIND_NAPI_POLL);
	if (!record)
		return 0;
	record->skb = skb;
	record->location = (u64)napi->poll;
	record->arg = work;
	record->netns = netns_of(napi->dev);
	record->ifindex = napi->dev ? napi->dev->ifindex : 0;
	record_end(record);
	return 0;
}

SEC("tp_btf/napi_gro_receive_entry")
int BPF_PROG(on_gro_receive, const struct sk_buff *skb)
{
	struct record *record = sight(KIND_GRO_RECEIVE, skb, skb->dev);
	struct current *current;
	u32 zero = 0;

	if (!record)
		return 0;
	record->config = receive_config(skb);
	record_stack(ctx, record);
	finish(record);
	current = bpf_map_lookup_elem(&trace_current, &zero);
	if (current)
		current->gro = (u64)skb;
	return 0;
}

SEC("tp_btf/napi_gro_receive_exit")
int BPF_PROG(on_gro_result, int result)
{
	struct current *current;
	struct record *record;
	u32 zero = 0;
	u64 skb;

	if (!may_be_wanted(false))
		return 0;
	current = bpf_map_lookup_elem(&trace_current, &zero);
	if (!current || !current->gro)
		return 0;
	skb = current->gro;
	current->gro = 0;
	record = record_begin(KIND_GRO_RESULT);
	if (!record)
		return 0;
	record->skb = skb;
	record->verdict = result;
	record_end(record);
	return 0;
}

/* What needs nothing but the buffer and its device. A function of its own, called once it is clear
 * that somebody may be looked for: strangers pass by every program, and pay for its length.
 */
static __noinline int seen_at_device(const struct sk_buff *skb, const struct net_device *dev, u16 kind)
{
	struct record *record = sight(kind, skb, dev);

	if (record)
		finish(record);
	return 0;
}

SEC("tp_btf/netif_rx")
int BPF_PROG(on_netif_rx, struct sk_buff *skb)
{
	return may_be_wanted(false) ? seen_at_device(skb, skb->dev, KIND_NETIF_RX) : 0;
}

static __noinline int seen_received(void *ctx, struct sk_buff *skb)
{
	struct record *record = sight(KIND_RECEIVE_SKB, skb, skb->dev);

	if (!record)
		return 0;
	record->config = receive_config(skb);
	record_stack(ctx, record);
	finish(record);
	return 0;
}

SEC("tp_btf/netif_receive_skb")
int BPF_PROG(on_receive_skb, struct sk_buff *skb)
{
	return may_begin_in(netns_of(skb->dev)) ? seen_received(ctx, skb) : 0;
}

static __noinline int seen_queued(void *ctx, struct sk_buff *skb)
{
	struct record *record;

	/* without stacks the device at the other end has to tell what passes through this one */
	if (!take_stacks && trace_filter.entry_netns != netns_of(skb->dev) &&
	    buffer_seen(place_of(skb), skb))
		return 0;
	record = sight(KIND_DEV_QUEUE, skb, skb->dev);
	if (!record)
		return 0;
	record_stack(ctx, record);
	finish(record);
	return 0;
}

SEC("tp_btf/net_dev_queue")
int BPF_PROG(on_dev_queue, struct sk_buff *skb)
{
	return may_begin_in(netns_of(skb->dev)) ? seen_queued(ctx, skb) : 0;
}

SEC("tp_btf/net_dev_start_xmit")
int BPF_PROG(on_dev_xmit, const struct sk_buff *skb, const struct net_device *dev)
{
	return may_be_wanted(false) ? seen_at_device(skb, dev, KIND_DEV_XMIT) : 0;
}

/* On the way out of a socket a packet has no device yet: the socket says where it is. */
static __always_inline u32 netns_of_freed(const struct sk_buff *skb)
{
	const struct net_device *dev = skb->dev;
	const struct sock *sk = skb->sk;

	if (dev || !sk)
		return netns_of(dev);
	return sk->__sk_common.skc_net.net->ns.inum;
}

static __noinline int seen_freed(void *ctx, struct sk_buff *skb, u64 location, u32 reason)
{
	struct record *record = sight_in(KIND_FREE, skb, skb->dev, netns_of_freed(skb));

	if (!record)
		return 0;
	record->location = location;
	record->reason = reason;
	record_stack(ctx, record);
	finish(record);
	forget(skb);
	return 0;
}

SEC("tp_btf/kfree_skb")
int BPF_PROG(on_free, struct sk_buff *skb, void *location, u32 reason)
{
	return may_begin_in(netns_of_freed(skb)) ? seen_freed(ctx, skb, (u64)location, reason) : 0;
}

/* The buffer ends, the packet need not: XDP and segmentation copy it into others. */
static __noinline int seen_consumed(u64 *ctx, struct sk_buff *skb)
{
	struct record *record = sight(KIND_CONSUME, skb, skb->dev);

	if (!record)
		return 0;
	/* Linux 6.1 does not say where: reading an argument too many is refused */
	if (consume_has_location)
		record->location = ctx[1];
	record_stack(ctx, record);
	finish(record);
	forget(skb);
	return 0;
}

SEC("tp_btf/consume_skb")
int BPF_PROG(on_consume, struct sk_buff *skb)
{
	return may_be_wanted(false) ? seen_consumed(ctx, skb) : 0;
}

static __always_inline bool route_wanted(const struct flowi4 *flow, const struct fib_nh_common *next)
{
	const struct tuple *want = &trace_filter.flow;

	if (recent_buffer())
		return true;
	/* the sender's own look-up comes before there is a buffer */
	if (!may_be_wanted(true) ||
	    (want->protocol && want->protocol != flow->__fl_common.flowic_proto))
		return false;
	/* the sender's: others ask for the same destination where they pass */
	if (trace_filter.entry_netns && next && next->nhc_dev &&
	    netns_of(next->nhc_dev) != trace_filter.entry_netns)
		return false;
	return (want->destination && want->destination == flow->daddr) ||
	       (want->source_port && want->source_port == flow->uli.ports.sport);
}

SEC("tp_btf/fib_table_lookup")
int BPF_PROG(on_route, u32 table, const struct flowi4 *flow, const struct fib_nh_common *next,
	     int error)
{
	struct record *record;

	if (!route_wanted(flow, next))
		return 0;
	record = record_begin(KIND_ROUTE);
	if (!record)
		return 0;
	record->skb = recent_buffer();
	record->verdict = error;
	record->arg = table;
	record->hash = flow->daddr;
	record->head = flow->saddr;
	/* of a packet that comes in; the loopback's where a socket asks */
	record->state = flow->__fl_common.flowic_iif;
	if (next) {
		record->netns = netns_of(next->nhc_dev);
		record->ifindex = next->nhc_dev ? next->nhc_dev->ifindex : 0;
		record->mark = next->nhc_gw.ipv4;
	}
	record_stack(ctx, record);
	record_end(record);
	return 0;
}

/* A listener has no packets in its queue: it is woken for a connection that is complete. */
static __always_inline int connection_ready(void *ctx, const struct sock *sk, u32 netns)
{
	struct record *record;
	u64 skb = recent_buffer();

	if (!skb || sk->__sk_common.skc_state != TCP_LISTEN)
		return 0;
	record = record_begin(KIND_DATA_READY);
	if (!record)
		return 0;
	record->skb = skb;
	record->netns = netns;
	record->location = (u64)sk->sk_data_ready;
	record->arg = ((u64)AF_INET << 32) | sk->__sk_common.skc_num;
	record_stack(ctx, record);
	record_end(record);
	return 0;
}

/* The newest packet of the queue is the one that the socket is woken for. */
static __noinline int data_ready(void *ctx, const struct sock *sk)
{
	const struct sk_buff *skb = sk->sk_receive_queue.prev;
	u32 netns = sk->__sk_common.skc_net.net->ns.inum;
	u16 family = sk->__sk_common.skc_family;
	struct record *record;

	/* netlink and unix sockets carry no packets */
	if (family != AF_INET && family != AF_PACKET)
		return 0;
	if ((u64)skb == (u64)&sk->sk_receive_queue)
		return connection_ready(ctx, sk, netns);
	if (!wanted(skb, netns, false))
		return 0;
	record = record_begin(KIND_DATA_READY);
	if (!record)
		return 0;
	record->netns = netns;
	record->location = (u64)sk->sk_data_ready;
	record->arg = ((u64)family << 32) | sk->__sk_common.skc_num;
	record->verdict = sk->sk_receive_queue.qlen;
	record->reason = policy_used(sk->__sk_common.skc_net.net);
	fill_buffer(record, skb);
	record_stack(ctx, record);
	finish(record);
	/* the reader's free is not seen on newer kernels: here the address stops being ours */
	if (family == AF_INET) {
		forget(skb);
		/* without stacks nobody watches the reader's system call */
		if (take_stacks)
			expect_reader(sk, skb);
	}
	return 0;
}

SEC("tp_btf/sk_data_ready")
int BPF_PROG(on_data_ready, const struct sock *sk)
{
	return may_be_wanted(false) ? data_ready(ctx, sk) : 0;
}

/* The same moment where the tracepoint is missing: what sk->sk_data_ready is for UDP and TCP. */
SEC("fentry/sock_def_readable")
int BPF_PROG(on_readable, const struct sock *sk)
{
	return may_be_wanted(false) ? data_ready(ctx, sk) : 0;
}

SEC("tp_btf/sock_rcvqueue_full")
int BPF_PROG(on_queue_full, struct sock *sk, struct sk_buff *skb)
{
	u32 netns = sk->__sk_common.skc_net.net->ns.inum;
	struct record *record;

	if (!wanted(skb, netns, false))
		return 0;
	record = record_begin(KIND_QUEUE_FULL);
	if (!record)
		return 0;
	record->netns = netns;
	record->arg = sk->__sk_common.skc_num;
	fill_buffer(record, skb);
	finish(record);
	return 0;
}

SEC("tp_btf/icmp_send")
int BPF_PROG(on_icmp_send, const struct sk_buff *skb, int type, int code)
{
	struct record *record = sight(KIND_ICMP_SEND, skb, skb->dev);

	if (!record)
		return 0;
	record->verdict = type << 8 | code;
	record_stack(ctx, record);
	finish(record);
	return 0;
}

SEC("tp_btf/tcp_send_reset")
int BPF_PROG(on_tcp_reset, const struct sock *sk, const struct sk_buff *skb)
{
	struct record *record;

	if (!skb)
		return 0;
	record = sight(KIND_TCP_RESET, skb, skb->dev);
	if (!record)
		return 0;
	record_stack(ctx, record);
	finish(record);
	return 0;
}

SEC("tp_btf/qdisc_enqueue")
int BPF_PROG(on_qdisc_enqueue, void *qdisc, const void *queue, struct sk_buff *skb)
{
	struct record *record = sight(KIND_QDISC_ENQUEUE, skb, skb->dev);

	if (record)
		finish(record);
	return 0;
}

static __always_inline struct record *xdp_record(u16 kind, const struct net_device *dev)
{
	struct record *record;
	u64 skb = recent_buffer();

	if (!skb)
		return NULL;
	record = record_begin(kind);
	if (!record)
		return NULL;
	record->skb = skb;
	record->netns = netns_of(dev);
	record->ifindex = dev->ifindex;
	return record;
}

SEC("tp_btf/xdp_exception")
int BPF_PROG(on_xdp_exception, const struct net_device *dev, const void *program, u32 action)
{
	struct record *record = xdp_record(KIND_XDP_EXCEPTION, dev);

	if (!record)
		return 0;
	record->verdict = action;
	record_end(record);
	return 0;
}

/* Where to: the map's type above bit 32, the place in it below; without a map the device. */
static __always_inline int redirected(const struct net_device *dev, int error, u32 map_type,
				      u32 map_id, u32 index)
{
	struct record *record = xdp_record(KIND_XDP_REDIRECT, dev);

	if (!record)
		return 0;
	record->verdict = error;
	record->arg = (u64)map_type << 32 | index;
	record->hash = map_id;
	record_end(record);
	return 0;
}

SEC("tp_btf/xdp_redirect")
int BPF_PROG(on_xdp_redirect, const struct net_device *dev, const void *program,
	     const void *target, int error, u32 map_type, u32 map_id, u32 index)
{
	return redirected(dev, error, map_type, map_id, index);
}

SEC("tp_btf/xdp_redirect_err")
int BPF_PROG(on_xdp_redirect_err, const struct net_device *dev, const void *program,
	     const void *target, int error, u32 map_type, u32 map_id, u32 index)
{
	return redirected(dev, error, map_type, map_id, index);
}

/* A redirected frame leaves in bulk when the poll ends: only here the device says that it did not
 * take it. Told of the device that redirected.
 */
SEC("tp_btf/xdp_devmap_xmit")
int BPF_PROG(on_xdp_devmap_xmit, const struct net_device *from, const struct net_device *to,
	     int sent, int drops, int error)
{
	struct record *record;

	if (!drops)
		return 0;
	record = xdp_record(KIND_XDP_TRANSMIT, from);
	if (!record)
		return 0;
	record->verdict = error;
	record->arg = (u64)sent << 32 | drops;
	record_end(record);
	return 0;
}

/* The route and the socket that a packet carries when it enters a hook. */
static __always_inline void netfilter_route(struct record *record, const struct sk_buff *skb)
{
	const struct dst_entry *route = (void *)(skb->_skb_refdst & ~1UL);

	record->verdict = skb->sk != NULL;
	if (route)
		record->location = (u64)BPF_CORE_READ(route, input);
}

/* The cookie behind payload that lies in pages: only here the kernel reads it for us. A function
 * of its own, as the verifier lets nothing else use the place where the dynptr was.
 */
static __noinline u64 paged_cookie(struct sk_buff *skb)
{
	struct bpf_dynptr packet;
	__be64 end[2];

	if (!skb->data_len || skb->len < sizeof(end))
		return 0;
	if (bpf_dynptr_from_skb((struct __sk_buff *)skb, 0, &packet) ||
	    bpf_dynptr_read(end, sizeof(end), &packet, skb->len - sizeof(end), 0))
		return 0;
	return end[0] == bpf_cpu_to_be64(COOKIE_MAGIC) ? bpf_be64_to_cpu(end[1]) : 0;
}

/* What XDP sends back leaves in bulk when the poll ends. */
SEC("tp_btf/xdp_bulk_tx")
int BPF_PROG(on_xdp_bulk_tx, const struct net_device *dev, int sent, int drops, int error)
{
	struct record *record = xdp_record(KIND_XDP_TX, dev);

	if (!record)
		return 0;
	record->verdict = error;
	record->arg = (u64)sent << 32 | drops;
	record_end(record);
	return 0;
}

/* A packet asked for a neighbour that is not known, or not fresh. */
SEC("tp_btf/neigh_event_send_done")
int BPF_PROG(on_neighbour, struct neighbour *neighbour, int error)
{
	struct record *record;
	u64 skb = recent_buffer();

	if (!skb || neighbour->tbl->family != AF_INET)
		return 0;
	record = record_begin(KIND_NEIGHBOUR);
	if (!record)
		return 0;
	record->skb = skb;
	record->netns = netns_of(neighbour->dev);
	record->ifindex = neighbour->dev ? neighbour->dev->ifindex : 0;
	record->arg = neighbour->nud_state;
	record->verdict = error;
	bpf_probe_read_kernel(&record->hash, sizeof(record->hash), neighbour->primary_key);
	record_end(record);
	return 0;
}

/* What conntrack holds the packet for, and the type of its route (enum rtable's, 0 without one). */
static __always_inline u32 netfilter_state(const struct sk_buff *skb)
{
	const struct rtable *route = (void *)(skb->_skb_refdst & ~1UL);
	u32 state = 0;

	if (bpf_core_field_exists(skb->_nfct) && skb->_nfct & ~CT_INFO_MASK)
		state = CT_KNOWN | (skb->_nfct & CT_INFO_MASK);
	if (route)
		state |= (u32)BPF_CORE_READ(route, rt_type) << 8;
	return state;
}

/* The packet in a netfilter hook: in front of its chains, or behind them. */
static __always_inline struct record *netfilter_seen(const struct nf_hook_state *state,
						     struct sk_buff *skb, u16 kind)
{
	const struct net_device *dev = state->hook < NF_LOCAL_OUT ? state->in : state->out;
	/* elsewhere the device told first */
	bool entry = kind == KIND_NETFILTER_FIRST && state->hook == NF_LOCAL_OUT;
	u32 netns = state->net->ns.inum;
	struct record *record;

	if (!may_be_wanted(entry) || !wanted(skb, netns, entry))
		return NULL;
	record = record_begin(kind);
	if (!record)
		return NULL;
	record->netns = netns;
	record->ifindex = dev ? dev->ifindex : 0;
	record->arg = state->hook;
	record->state = netfilter_state(skb);
	fill_buffer(record, skb);
	/* a packet redirected into the device (bpf_redirect_peer) is met here first */
	if (kind == KIND_NETFILTER_FIRST && state->hook == NF_PREROUTING && skb->dev)
		record->config = receive_config(skb);
	if (kind == KIND_NETFILTER_FIRST) {
		if (state->hook == NF_LOCAL_IN)
			record->reason = policy_used(state->net);
		netfilter_route(record, skb);
	}
	return record;
}

#include "standin.h"

/* One netfilter program before and one behind every chain of a hook: what passes the first and
 * not the last was judged by a rule in between.
 */
static __noinline int seen_by_netfilter(struct bpf_nf_ctx *ctx, u16 kind)
{
	struct sk_buff *skb = ctx->skb;
	struct record *record = netfilter_seen(ctx->state, skb, kind);

	if (!record)
		return NF_ACCEPT;
	if (kind == KIND_NETFILTER_FIRST)
		record->cookie = record->cookie ?: paged_cookie(skb);
	finish(record);
	return NF_ACCEPT;
}

SEC("netfilter")
int netfilter_first(struct bpf_nf_ctx *ctx)
{
	/* only where the packet leaves its sender, nothing told of it before */
	bool entry = ctx->state->hook == NF_LOCAL_OUT;

	return may_be_wanted(entry) ? seen_by_netfilter(ctx, KIND_NETFILTER_FIRST) : NF_ACCEPT;
}

SEC("netfilter")
int netfilter_last(struct bpf_nf_ctx *ctx)
{
	return may_be_wanted(false) ? seen_by_netfilter(ctx, KIND_NETFILTER_LAST) : NF_ACCEPT;
}

static __always_inline void hook_sight(struct __sk_buff *ctx, u16 kind)
{
	struct sk_buff *skb;

	if (!may_be_wanted(kind == KIND_CGROUP_EGRESS))
		return;
	skb = bpf_cast_to_kern_ctx(ctx);
	if (kind != KIND_CGROUP_EGRESS || may_begin_in(netns_of(skb->dev)))
		seen_at_device(skb, skb->dev, kind);
}

/* The sending socket's control group, behind the last netfilter hook. */
SEC("cgroup_skb/egress")
int cgroup_egress(struct __sk_buff *ctx)
{
	hook_sight(ctx, KIND_CGROUP_EGRESS);
	return CGROUP_PASS;
}

/* The receiving socket's control group, just before the socket's own filter. */
SEC("cgroup_skb/ingress")
int cgroup_ingress(struct __sk_buff *ctx)
{
	hook_sight(ctx, KIND_CGROUP_INGRESS);
	return CGROUP_PASS;
}

SEC("tc")
int tc_ingress(struct __sk_buff *ctx)
{
	hook_sight(ctx, KIND_TC_INGRESS);
	return TCX_NEXT;
}

SEC("tc")
int tc_egress(struct __sk_buff *ctx)
{
	hook_sight(ctx, KIND_TC_EGRESS);
	return TCX_NEXT;
}
