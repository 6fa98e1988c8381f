// SPDX-License-Identifier: GPL-2.0
/* The second witness: probes on entry of (fentry) or return from (fexit) the kernel's own
 * functions, one or two for each of the 19 steps and for the way out.
 *
 * It shares with packet.bpf.c what a wanted packet is, and nothing else: no tracepoint, no call
 * stack but one, no program in a hook. Each program can be left out where the running kernel has
 * no such function to attach to. A record names its function by address.
 */
#define __TARGET_ARCH_x86 /* for PT_REGS_PARM1() and its like */
#include "secret.h"
#include <linux/ptrace.h>

char LICENSE[] SEC("license") = "GPL";

#define NF_LOCAL_OUT 3
#define NFPROTO_IPV4 2
#define NFPROTO_NETDEV 5
#define PACKET_OUTGOING 4
#define MOST_OF_A_LIST 8

/* The poll that this processor is in: what it receives meanwhile came with it. */
struct poll {
	u64 function;	/* address of what was entered; 0: in no poll */
	u64 poll;	/* the device's own poll function */
	u64 ns;
	u64 told;	/* buffer that it was told of last, and where */
	u64 device;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct poll);
} trace_poll SEC(".maps");

/* Socket -> buffer queued on it last: the wake-up names no buffer. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, u64);
	__type(value, u64);
} trace_queued SEC(".maps");

/* Buffers of wanted packets -> generation of the filter, for programs that have an address alone. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, u64);
	__type(value, u32);
} trace_addresses SEC(".maps");

static __always_inline bool known(u64 skb)
{
	u32 *generation;

	if (!may_be_wanted(false))
		return false;
	generation = bpf_map_lookup_elem(&trace_addresses, &skb);
	return generation && *generation == trace_filter.generation;
}

static __always_inline struct poll *this_poll(void)
{
	u32 zero = 0;

	return bpf_map_lookup_elem(&trace_poll, &zero);
}

/* A record about a function that was given a buffer, unless nobody wants it. @first: a packet may
 * be seen here first.
 */
static __always_inline struct record *entered(void *ctx, const struct sk_buff *skb, u32 netns,
					      bool first)
{
	u32 generation = trace_filter.generation;
	struct record *record;
	u64 key = (u64)skb;

	if (!wanted(skb, netns, first))
		return NULL;
	bpf_map_update_elem(&trace_addresses, &key, &generation, BPF_ANY);
	record = record_begin(KIND_FUNCTION);
	if (!record)
		return NULL;
	record->location = bpf_get_func_ip(ctx);
	record->netns = netns;
	fill_buffer(record, skb);
	return record;
}

/* The same where the buffer's own device says where it is. */
static __always_inline struct record *at_device(void *ctx, const struct sk_buff *skb, bool first)
{
	const struct net_device *dev = skb->dev;
	struct record *record = entered(ctx, skb, netns_of(dev), first);

	if (record)
		record->ifindex = dev ? dev->ifindex : 0;
	return record;
}

/* A record about a function that no longer, or not yet, has a buffer to look into. */
static __always_inline struct record *without_buffer(u16 kind, u64 function, u64 skb)
{
	struct record *record = record_begin(kind);

	if (record) {
		record->location = function;
		record->skb = skb;
	}
	return record;
}

static __always_inline void returned(void *ctx, const struct sk_buff *skb, int value)
{
	struct record *record;

	if (!known((u64)skb))
		return;
	record = without_buffer(KIND_FUNCTION_RETURN, bpf_get_func_ip(ctx), (u64)skb);
	if (!record)
		return;
	record->verdict = value;
	record_end(record);
}

/* Tells once per buffer and device which poll it came with, in front of the first function that has it. */
static __always_inline void tell_poll(const struct sk_buff *skb)
{
	const struct net_device *dev = skb->dev;
	struct poll *poll = this_poll();
	struct record *record;

	if (!poll || !poll->function)
		return;
	if (poll->told == (u64)skb && poll->device == (u64)dev)
		return;
	if (!wanted(skb, netns_of(dev), false))
		return;
	record = without_buffer(KIND_FUNCTION, poll->function, (u64)skb);
	if (!record)
		return;
	poll->told = (u64)skb;
	poll->device = (u64)dev;
	record->arg = poll->poll;
	record->verdict = (record->ns - poll->ns) / 1000;
	record->netns = netns_of(dev);
	record->ifindex = dev ? dev->ifindex : 0;
	fill_buffer(record, skb);
	record_end(record);
}

static __always_inline int received(void *ctx, const struct sk_buff *skb, bool first)
{
	struct record *record;

	tell_poll(skb);
	record = at_device(ctx, skb, first);
	if (!record)
		return 0;
	record->config = receive_config(skb);
	record_end(record);
	return 0;
}

/* Behind the device: the namespace is what matters. */
static __always_inline int at_layer3(void *ctx, const struct sk_buff *skb)
{
	struct record *record = at_device(ctx, skb, false);

	if (record)
		record_end(record);
	return 0;
}

static __always_inline int queued(void *ctx, const struct sock *sk, const struct sk_buff *skb)
{
	u64 key = (u64)sk, value = (u64)skb;
	struct record *record;

	record = entered(ctx, skb, sk->__sk_common.skc_net.net->ns.inum, false);
	if (!record)
		return 0;
	record->arg = sk->__sk_common.skc_num;
	record->verdict = sk->sk_receive_queue.qlen;
	record_end(record);
	bpf_map_update_elem(&trace_queued, &key, &value, BPF_ANY);
	return 0;
}

static __always_inline int sent(void *ctx, const struct sk_buff *skb, const struct net *net)
{
	struct record *record = entered(ctx, skb, net->ns.inum, true);

	if (record)
		record_end(record);
	return 0;
}

/* -- 1 to 4: the driver's side ------------------------------------------------------------- */

SEC("fentry/__napi_poll")
int BPF_PROG(f_napi_poll, struct napi_struct *napi)
{
	struct poll *poll = this_poll();

	if (!poll || trace_filter.mode == MODE_OFF)
		return 0;
	poll->function = bpf_get_func_ip(ctx);
	poll->poll = (u64)napi->poll;
	poll->ns = bpf_ktime_get_ns();
	poll->told = 0;
	return 0;
}

SEC("fexit/__napi_poll")
int BPF_PROG(f_napi_poll_over, struct napi_struct *napi)
{
	struct poll *poll = this_poll();

	if (poll)
		poll->function = 0;
	return 0;
}

SEC("fentry/veth_xdp_rcv_skb")
int BPF_PROG(f_xdp_driver, void *queue, struct sk_buff *skb)
{
	return received(ctx, skb, false);
}

/* It returns the buffer that the packet is in now: the driver's own if there is a program. */
SEC("fexit/veth_xdp_rcv_skb")
int BPF_PROG(f_xdp_driver_over, void *queue, struct sk_buff *skb, void *bulk, void *stats,
	     struct sk_buff *now)
{
	struct record *record;

	if (!known((u64)skb))
		return 0;
	record = without_buffer(KIND_FUNCTION_RETURN, bpf_get_func_ip(ctx), (u64)skb);
	if (!record)
		return 0;
	record->arg = (u64)now;
	record_end(record);
	return 0;
}

SEC("fentry/dev_gro_receive")
int BPF_PROG(f_gro_receive, struct napi_struct *napi, struct sk_buff *skb)
{
	return received(ctx, skb, false);
}

/* -- 5 to 9: independent of the protocol ---------------------------------------------------- */

SEC("fentry/__netif_receive_skb_one_core")
int BPF_PROG(f_receive_one, struct sk_buff *skb)
{
	return received(ctx, skb, true);
}

/* A list is a chain of pointers that the verifier does not know for buffers: what was seen going
 * into it (f_gro_receive) is recognised by its address.
 */
SEC("fentry/netif_receive_skb_list_internal")
int BPF_PROG(f_receive_list, struct list_head *head)
{
	struct sk_buff *skb = (struct sk_buff *)BPF_CORE_READ(head, next);
	struct record *record;
	int i;

	if (!may_be_wanted(false))
		return 0;
	for (i = 0; i < MOST_OF_A_LIST && (u64)skb != (u64)head; i++) {
		record = known((u64)skb) ?
				 without_buffer(KIND_FUNCTION, bpf_get_func_ip(ctx), (u64)skb) :
				 NULL;
		if (record) {
			record->netns = BPF_CORE_READ(skb, dev, nd_net.net, ns.inum);
			record->ifindex = BPF_CORE_READ(skb, dev, ifindex);
			record_end(record);
		}
		if (bpf_probe_read_kernel(&skb, sizeof(skb), skb))
			return 0;
	}
	return 0;
}

/* Runs only where there is a program, unlike do_xdp_generic; the buffer outlives it. */
SEC("fexit/bpf_prog_run_generic_xdp")
int BPF_PROG(f_xdp_generic, struct sk_buff *skb, void *xdp, void *program, u32 action)
{
	struct record *record = at_device(ctx, skb, false);

	if (!record)
		return 0;
	record->verdict = action;
	record_end(record);
	return 0;
}

static __always_inline int tapped(void *ctx, struct sk_buff *skb)
{
	/* what a device sends is shown to packet sockets too: a copy that was not received */
	if (BPF_CORE_READ_BITFIELD(skb, pkt_type) == PACKET_OUTGOING)
		return 0;
	return at_layer3(ctx, skb);
}

SEC("fentry/packet_rcv")
int BPF_PROG(f_tap, struct sk_buff *skb)
{
	return tapped(ctx, skb);
}

SEC("fentry/tpacket_rcv")
int BPF_PROG(f_tap_ring, struct sk_buff *skb)
{
	return tapped(ctx, skb);
}

/* On return, with the verdict: what it says is done by the caller, the buffer is still whole. */
SEC("fexit/tcf_classify")
int BPF_PROG(f_classify, struct sk_buff *skb, void *block, void *proto, void *result, bool compat,
	     int verdict)
{
	struct record *record = at_device(ctx, skb, false);

	if (!record)
		return 0;
	record->verdict = verdict;
	record->arg = BPF_CORE_READ_BITFIELD(skb, tc_at_ingress);
	record_end(record);
	return 0;
}

/* -- 9, 11, 14 and the way out: chains of rules --------------------------------------------- */

SEC("fentry/nf_hook_slow")
int BPF_PROG(f_netfilter, struct sk_buff *skb, struct nf_hook_state *state)
{
	const struct net_device *dev = state->hook < NF_LOCAL_OUT ? state->in : state->out;
	struct record *record;
	u8 family = state->pf;

	if (family != NFPROTO_IPV4 && family != NFPROTO_NETDEV)
		return 0;
	if (family == NFPROTO_NETDEV)
		dev = skb->dev;
	record = entered(ctx, skb, state->net->ns.inum, false);
	if (!record)
		return 0;
	record->arg = (u64)family << 8 | state->hook;
	record->ifindex = dev ? dev->ifindex : 0;
	record_end(record);
	return 0;
}

/* The buffer may be gone: 1 accepted, 0 stolen or queued, negative dropped. */
SEC("fexit/nf_hook_slow")
int BPF_PROG(f_netfilter_over, struct sk_buff *skb, struct nf_hook_state *state, void *entries,
	     unsigned int start, int verdict)
{
	returned(ctx, skb, verdict);
	return 0;
}

/* -- 10 to 17: IP and the transports -------------------------------------------------------- */

SEC("fentry/ip_rcv_core")
int BPF_PROG(f_ip_rcv, struct sk_buff *skb)
{
	struct record *record = at_device(ctx, skb, false);

	if (!record)
		return 0;
	/* what a program redirected into the device is met here first */
	record->config = receive_config(skb);
	record_end(record);
	return 0;
}

/* The compiler leaves it whole on some kernels only. */
SEC("fentry/ip_rcv_finish_core")
int BPF_PROG(f_ip_rcv_finish, struct net *net, struct sock *sk, struct sk_buff *skb)
{
	return at_layer3(ctx, skb);
}

/* The same where the compiler left a version of it that takes other arguments than its types say
 * (.constprop): the one that is a buffer seen before is the packet.
 */
SEC("kprobe")
int k_ip_rcv_finish(struct pt_regs *regs)
{
	u64 one = PT_REGS_PARM1(regs), two = PT_REGS_PARM2(regs), three = PT_REGS_PARM3(regs);
	const struct sk_buff *skb;
	struct record *record;

	if (!may_be_wanted(false))
		return 0;
	skb = (void *)(known(one) ? one : known(two) ? two : known(three) ? three : 0);
	if (!skb)
		return 0;
	record = without_buffer(KIND_FUNCTION, bpf_get_func_ip(regs), (u64)skb);
	if (!record)
		return 0;
	record->netns = BPF_CORE_READ(skb, dev, nd_net.net, ns.inum);
	record->ifindex = BPF_CORE_READ(skb, dev, ifindex);
	record_end(record);
	return 0;
}

/* With its callers: step 12 is inlined into them on some kernels. */
SEC("fentry/ip_route_input_noref")
int BPF_PROG(f_ip_routing, struct sk_buff *skb, __be32 destination)
{
	struct record *record = at_device(ctx, skb, false);

	if (!record)
		return 0;
	record->hash = destination;
	record_stack(ctx, record);
	record_end(record);
	return 0;
}

SEC("fentry/ip_forward")
int BPF_PROG(f_ip_forward, struct sk_buff *skb)
{
	return at_layer3(ctx, skb);
}

SEC("fentry/ip_local_deliver")
int BPF_PROG(f_ip_local_deliver, struct sk_buff *skb)
{
	return at_layer3(ctx, skb);
}

SEC("fentry/__xfrm_policy_check")
int BPF_PROG(f_xfrm_policy, struct sock *sk, int direction, struct sk_buff *skb)
{
	return at_layer3(ctx, skb);
}

SEC("fentry/udp_rcv")
int BPF_PROG(f_udp_rcv, struct sk_buff *skb)
{
	return at_layer3(ctx, skb);
}

SEC("fentry/tcp_v4_rcv")
int BPF_PROG(f_tcp_rcv, struct sk_buff *skb)
{
	return at_layer3(ctx, skb);
}

SEC("fentry/icmp_rcv")
int BPF_PROG(f_icmp_rcv, struct sk_buff *skb)
{
	return at_layer3(ctx, skb);
}

/* -- 18 and 19: the socket ------------------------------------------------------------------ */

SEC("fentry/__udp_enqueue_schedule_skb")
int BPF_PROG(f_udp_queue, struct sock *sk, struct sk_buff *skb)
{
	return queued(ctx, sk, skb);
}

SEC("fentry/tcp_queue_rcv")
int BPF_PROG(f_tcp_queue, struct sock *sk, struct sk_buff *skb)
{
	return queued(ctx, sk, skb);
}

SEC("fentry/__sock_queue_rcv_skb")
int BPF_PROG(f_sock_queue, struct sock *sk, struct sk_buff *skb)
{
	return queued(ctx, sk, skb);
}

SEC("fentry/sock_def_readable")
int BPF_PROG(f_data_ready, struct sock *sk)
{
	struct record *record;
	u64 key = (u64)sk;
	u64 *skb;

	if (!may_be_wanted(false))
		return 0;
	skb = bpf_map_lookup_elem(&trace_queued, &key);
	if (!skb)
		return 0;
	record = without_buffer(KIND_FUNCTION, bpf_get_func_ip(ctx), *skb);
	bpf_map_delete_elem(&trace_queued, &key);
	if (!record)
		return 0;
	record->netns = sk->__sk_common.skc_net.net->ns.inum;
	record->arg = sk->__sk_common.skc_num;
	record_end(record);
	return 0;
}

/* Called with the reason by whatever gives a packet up: who that is, the stack tells. */
SEC("fentry/kfree_skb_reason")
int BPF_PROG(f_free, struct sk_buff *skb, u32 reason)
{
	struct record *record = at_device(ctx, skb, false);
	u64 key = (u64)skb;

	if (!record)
		return 0;
	record->reason = reason;
	record_stack(ctx, record);
	record_end(record);
	forget(skb);
	bpf_map_delete_elem(&trace_addresses, &key);
	return 0;
}

/* -- the way out ---------------------------------------------------------------------------- */

SEC("fentry/__ip_local_out")
int BPF_PROG(f_local_out, struct net *net, struct sock *sk, struct sk_buff *skb)
{
	return sent(ctx, skb, net);
}

SEC("fentry/ip_output")
int BPF_PROG(f_ip_output, struct net *net, struct sock *sk, struct sk_buff *skb)
{
	return sent(ctx, skb, net);
}

SEC("fentry/__dev_queue_xmit")
int BPF_PROG(f_dev_queue, struct sk_buff *skb)
{
	struct record *record = at_device(ctx, skb, true);

	if (record)
		record_end(record);
	return 0;
}

SEC("fentry/dev_hard_start_xmit")
int BPF_PROG(f_dev_xmit, struct sk_buff *skb)
{
	return at_layer3(ctx, skb);
}

/* -- IPsec ---------------------------------------------------------------------------------- */

SEC("fentry/xfrm_output")
int BPF_PROG(f_xfrm_output, struct sock *sk, struct sk_buff *skb)
{
	const struct dst_entry *route = (void *)(skb->_skb_refdst & ~1UL);
	struct record *record;

	if (!may_be_wanted(true) || !route)
		return 0;
	record = entered(ctx, skb, BPF_CORE_READ(route, dev, nd_net.net, ns.inum), true);
	if (!record)
		return 0;
	record->ifindex = BPF_CORE_READ(route, dev, ifindex);
	record_end(record);
	return 0;
}

SEC("fentry/esp_output")
int BPF_PROG(f_esp_output, struct xfrm_state *state, struct sk_buff *skb)
{
	return encrypting(ctx, state, skb);
}

SEC("fentry/xfrm4_esp_rcv")
int BPF_PROG(f_esp_rcv, struct sk_buff *skb)
{
	return at_layer3(ctx, skb);
}

SEC("fexit/esp_input")
int BPF_PROG(f_esp_input, struct xfrm_state *state, struct sk_buff *skb, int inside)
{
	return decrypted(ctx, skb, state->xs_net.net->ns.inum, inside);
}
