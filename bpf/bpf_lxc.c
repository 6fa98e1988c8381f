// SPDX-License-Identifier: GPL-2.0
/*
 * The pod's side of the datapath. Attached to the host end of its veth, so that what the pod sends
 * arrives at tc ingress (from-container) and what it receives leaves at tc egress (to-container).
 *
 *   from-container ─► 6 ARP, answered here
 *                  └► 7 IPv4, services ─► 29 conntrack ─► 25 policy, routing
 *                                     ─► the stack, the tunnel, or another pod's handle_policy
 *   handle_policy  ─► 28 conntrack ─► 11 policy ─► the pod's veth
 *                     (entered by tail call, on the hook of whoever delivers)
 *   to-container   ─► 27 conntrack ─► 13 policy ─► the pod      (only with a route per endpoint)
 *
 * With inline_tail_calls from-container calls 7 for services alone, and 29, handle_policy and
 * to-container do themselves what comes after them.
 */
#define THIS_FILE FILE_BPF_LXC

#include "lib/common.h"

#include "lib/arp.h"
#include "lib/config.h"
#include "lib/conntrack.h"
#include "lib/custom.h"
#include "lib/drop.h"
#include "lib/dsr.h"
#include "lib/encap.h"
#include "lib/eps.h"
#include "lib/fib.h"
#include "lib/host.h"
#include "lib/identity.h"
#include "lib/ipcache.h"
#include "lib/ipv4.h"
#include "lib/lb.h"
#include "lib/leave.h"
#include "lib/local_delivery.h"
#include "lib/policy.h"
#include "lib/tailcall.h"
#include "lib/trace.h"

/* What the programs after conntrack carry along. */
struct leaving {
	const struct ct_buffer4 *ct;
	const struct remote_endpoint_info *remote; /* once receiver_known */
	struct trace_info trace;
	__be32 daddr;
	bool receiver_known;
	__be16 rev_nat_index; /* service this packet was translated for */
	bool hairpin; /* the service chose the pod itself */
};

/* How a packet comes to the pod: by the tail call of whoever delivers, or through the stack. */
enum lxc_door {
	DOOR_POLICY,
	DOOR_TO_CONTAINER,
};

/* The conntrack entry for what the pod sends: made when new, and anew when the pod reaches by a
 * service what it reached directly before, or the other way round. 0 or a DROP_*. */
static __always_inline int track_from_lxc(struct __sk_buff *ctx, const struct leaving *out)
{
	struct ct_state state = {
		.rev_nat_index = out->rev_nat_index,
		.src_sec_id = security_identity,
		.flags = out->hairpin ? CT_F_LB_LOOPBACK : 0,
	};

	if (out->ct->status == CT_REPLY || out->ct->status == CT_RELATED)
		return 0;
	if (out->ct->status != CT_NEW && out->ct->state.rev_nat_index == out->rev_nat_index)
		return 0;
	return ct_create4(ctx, &out->ct->flow, CT_EGRESS, &state);
}

/* Who is it for? Whoever is not in the ipcache is the world. Asked once, and only when somebody wants
 * to know: policy, the tunnel, who is told of the packet. */
static __always_inline void know_receiver(struct __sk_buff *ctx, struct leaving *out,
					  struct drop_info *drop)
{
	if (out->receiver_known)
		return;
	out->receiver_known = true;
	out->remote = ipcache_lookup4(ctx, out->daddr);
	drop->dst_label = out->remote && out->remote->sec_identity ? out->remote->sec_identity :
								     IDENTITY_WORLD;
	out->trace.dst_label = drop->dst_label;
}

/* With eBPF host routing: from here to the uplink. The mark tells to-netdev who sends. */
static __always_inline int route_past_stack(struct __sk_buff *ctx, const struct leaving *out,
					    struct drop_info *drop)
{
	__u32 fib_err = 0;
	int ret;

	trace_notify(ctx, TRACE_TO_NETWORK, &out->trace);
	ctx->mark = identity_mark(security_identity, MARK_MAGIC_IDENTITY);
	ret = fib_redirect4(ctx, &fib_err);
	drop->ext_err = fib_err;
	return ret;
}

/* Only such addresses can be in cilium_lxc: its own pods', the router's among them, and the node's. */
static __always_inline bool is_here(__be32 addr)
{
	return !((addr ^ router_ipv4) & pod_cidr_mask) || addr == node_ipv4;
}

/* Where a packet the pod may send goes next. A verdict or a DROP_*. */
static __always_inline int route_from_lxc(struct __sk_buff *ctx, struct leaving *out,
					  struct drop_info *drop)
{
	const struct endpoint_info *ep;
	struct delivery from = {
		.src_label = security_identity,
		.flags = DELIVERY_PEER,
	};
	__be32 node;

	/* 1. A pod of this node: its own policy program decides. */
	ep = is_here(out->daddr) ? endpoint_lookup4(ctx, out->daddr) : NULL;
	if (ep && !(ep->flags & ENDPOINT_F_HOST) && !enable_endpoint_routes) {
		metrics_count(ctx->len, REASON_FORWARDED, METRIC_EGRESS);
		/* An error's tuple is that of the packet it quotes, whichever way round. */
		if (out->ct->status != CT_RELATED)
			from.flags |= DELIVERY_TRACKED;
		return deliver_local4(ctx, ep, &from);
	}

	/* 2. A pod of another node: through the tunnel, with our identity as VNI. */
	if (enable_tunnel || trace_wanted(&out->trace))
		know_receiver(ctx, out, drop);
	node = enable_tunnel && !ep ? tunnel_endpoint4(ctx, out->remote, out->daddr) : 0;
	if (node)
		return encap_redirect(ctx, node, &out->trace);

	/* 3. A pod or client on the underlay, with host routing: by the node's routes, not through
	 *    its stack. */
	if (enable_host_routing && !ep)
		return route_past_stack(ctx, out, drop);

	/* 4. The node itself, or the world: its stack knows the way. */
	trace_notify(ctx, TRACE_TO_STACK, &out->trace);
	return pass_to_stack(ctx, security_identity);
}

/* From conntrack to the wire: policy, tracking, routing. A verdict or a DROP_*. */
static __always_inline int handle_ipv4_from_lxc(struct __sk_buff *ctx, struct leaving *out,
						struct drop_info *drop)
{
	struct iphdr *ip4 = ipv4_header(ctx);
	__u64 absent = 0;
	int ret;

	out->ct = ct_buffer();
	if (!out->ct)
		return DROP_INVALID_TC_BUFFER;
	if (!ip4)
		return DROP_INVALID;

	out->daddr = ip4->daddr;
	out->trace.reason = out->ct->status;
	out->trace.quiet = !out->ct->monitor;

	/* 1. Who is it for, and 2. may the pod send it? It may always talk to itself. */
	if (enable_custom_calls)
		know_receiver(ctx, out, drop);
	if (unlikely(!out->hairpin && !policy_is_settled(out->ct, CT_EGRESS, &absent))) {
		know_receiver(ctx, out, drop);
		ret = policy_enforce(ctx, out->ct, CT_EGRESS, drop->dst_label, absent);
		if (unlikely(ret < 0))
			return ret;
	}

	/* 3. Remember the flow. */
	ret = track_from_lxc(ctx, out);
	if (unlikely(ret < 0))
		return ret;

	/* 4. An answer to NodePort, or to itself through a service, comes from the service; so does
	 *    an error about the request. */
	if ((out->ct->status == CT_REPLY || out->ct->status == CT_RELATED) &&
	    out->ct->state.flags & CT_F_TRANSLATED)
		return tail_call(ctx, CALL_NODEPORT_REVNAT, &drop->ext_err);
	return route_from_lxc(ctx, out, drop);
}

/* May this packet be looked at at all? 0 or a DROP_*. */
static __always_inline int check_from_lxc(const struct __sk_buff *ctx, const struct iphdr *ip4)
{
	if (unlikely(!ip4 || !ipv4_is_sane(ctx, ip4)))
		return DROP_INVALID;
	if (ipv4_is_fragment(ip4) && !enable_ipv4_fragments)
		return DROP_FRAG_NOSUPPORT;
	if (unlikely(ip4->saddr != endpoint_ipv4))
		return DROP_INVALID_SIP;
	return 0;
}

/* A pod that is its own backend must not see its own address as source, or it would answer
 * without us: the packet comes from the loopback address. 0 or a DROP_*. */
static __always_inline int hairpin_source(struct __sk_buff *ctx, const struct flow4 *flow)
{
	struct rewrite4 change = {
		.old_addr = endpoint_ipv4,
		.new_addr = service_loopback_ipv4,
		.l3_off = IPV4_OFF,
		.l4_off = flow->l4_off,
		.side = REWRITE_SRC,
		.proto = flow->proto,
		.has_l4 = flow->has_l4,
	};

	return rewrite4(ctx, &change);
}

/* Translates the packet if it is for a service; leaves word of it in cb. 0 or a DROP_*. */
VERIFIED_ONCE int translate_from_lxc(struct __sk_buff *ctx)
{
	struct flow4 flow = {};
	struct lb4_request request = { .flow = &flow };
	const struct lb4_backend *backend = NULL;
	const struct lb4_service *svc;
	struct ct_state state = {};
	bool hairpin;
	int ret;

	ret = flow4_read(ctx, &flow);
	if (ret < 0)
		return ret;
	lb4_key_set(&request.key, &flow);
	svc = lb4_lookup_service(ctx, &request.key, true);
	if (!svc)
		return 0;
	if (!lb4_source_allowed(svc, endpoint_ipv4))
		return DROP_NOT_IN_SRC_RANGE;
	ret = lb4_local(ctx, &request, svc, &state, &backend);
	if (ret < 0 || !backend)
		return ret;
	hairpin = backend->address == endpoint_ipv4;
	cb_set(ctx, CB_LB_STATE, (__u32)state.rev_nat_index << 16 | hairpin);
	ret = lb4_xlate(ctx, &flow, backend);
	if (ret < 0 || !hairpin)
		return ret;
	return hairpin_source(ctx, &flow);
}

/* A pod: no service has such an address, but those that listen on the node's own, of which the
 * router's lies among the pods'. */
static __always_inline bool is_pod(__be32 addr)
{
	return !((addr ^ router_ipv4) & pods_mask) && addr != router_ipv4;
}

/* Most packets are for no service: a look at address and port tells. */
static __always_inline bool may_be_for_service(struct __sk_buff *ctx, const struct iphdr *ip4)
{
	struct lb4_key key;

	/* Only what has ports can be meant for a service; conntrack judges the rest. */
	if (!enable_services || ip4->protocol == IPPROTO_ICMP || is_pod(ip4->daddr))
		return false;
	if (unlikely(!lb4_key_peek(ctx, ip4, &key)) ||
	    unlikely(bpf_map_lookup_elem(&cilium_lb4_services_v2, &key)))
		return true;
	lb4_tell(ctx, &key, NULL);
	return false;
}

/*
 * A new flow that was translated on its way here, on this node, has to be translated back: its
 * entry inherits what the entry of the translation says. That is NodePort, here or (DSR) on
 * another node, or the pod itself by way of a service. The tuple has been turned round.
 */
static __always_inline void inherit_translation(const struct ipv4_ct_tuple *turned,
						struct ct_state *state, __u32 src_label)
{
	struct ipv4_ct_tuple tuple IN_WORDS;
	const struct ct_entry *entry;

	tuple_copy(&tuple, turned);
	if (!enable_nodeport && tuple.daddr != service_loopback_ipv4)
		return;
	/* Only the pod itself can be on its own way back; anybody can write that address. */
	if (tuple.daddr == service_loopback_ipv4 && src_label != security_identity)
		return;
	tuple_set_flags(&tuple, TUPLE_F_OUT);
	entry = ct_find(&tuple);
	if (entry && entry->flags & CT_F_TRANSLATED) {
		state->flags = entry->flags & CT_F_TRANSLATED;
		state->rev_nat_index = entry->rev_nat_index;
	}
}

/* What the pod is about to receive: answers of a service's backend come from the service. The
 * identity is the sender's whatever its address says. 0 or a DROP_*. */
static __always_inline int ipv4_policy(struct __sk_buff *ctx, const struct ct_buffer4 *ct,
				       struct trace_info *trace)
{
	struct ct_state state = { .src_sec_id = trace->src_label };
	struct iphdr *ip4 = ipv4_header(ctx);
	__u64 absent = 0;
	int ret;

	if (!ip4)
		return DROP_INVALID;
	trace->orig_ip4 = ip4->saddr;
	trace->reason = ct->status;
	trace->quiet = !ct->monitor;

	/* 1. The pod's own answer, back from its service: was judged when it was a request. */
	if (cb_get(ctx, CB_DELIVERY) & DELIVERY_HAIRPIN)
		return 0;

	/* 2. Answers of a service. */
	if ((ct->status == CT_REPLY || ct->status == CT_RELATED) && ct->state.rev_nat_index &&
	    !(ct->state.flags & CT_F_LB_LOOPBACK)) {
		ret = lb4_rev_nat(ctx, &ct->flow, ct->state.rev_nat_index);
		if (unlikely(ret < 0))
			return ret;
	}

	/* 3. May the pod receive it? It may always talk to itself. */
	if (unlikely(ct->status == CT_NEW))
		inherit_translation(&ct->flow.tuple, &state, trace->src_label);
	if (unlikely(!((state.flags | ct->state.flags) & CT_F_LB_LOOPBACK) &&
		     !policy_is_settled(ct, CT_INGRESS, &absent))) {
		ret = policy_enforce(ctx, ct, CT_INGRESS, trace->src_label, absent);
		if (unlikely(ret < 0))
			return ret;
	}

	/* 4. Remember the flow. */
	if (likely(ct->status != CT_NEW))
		return 0;
	if (cb_get(ctx, CB_FROM_TUNNEL))
		state.flags |= CT_F_FROM_TUNNEL;
	return ct_create4(ctx, &ct->flow, CT_INGRESS, &state);
}

static __always_inline struct trace_info trace_to_lxc(const struct __sk_buff *ctx)
{
	return (struct trace_info){
		.src_label = cb_get(ctx, CB_SRC_LABEL),
		.to_self = true,
	};
}

static __always_inline struct drop_info drop_to_lxc(const struct __sk_buff *ctx)
{
	return (struct drop_info){
		.src_label = cb_get(ctx, CB_SRC_LABEL),
		.to_self = true,
		.dir = METRIC_INGRESS,
	};
}

/* What the pod says in ARP: a verdict or a DROP_*. */
static __always_inline int handle_arp(struct __sk_buff *ctx)
{
	struct arp_ipv4 arp;
	int ret = arp_read(ctx, &arp);

	if (ret < 0)
		return ret;
	/* 1. The pod's own answer is for the node's stack (routes per endpoint); only about itself. */
	if (arp.op != bpf_htons(ARP_REQUEST))
		return arp.spa == endpoint_ipv4 ? TC_ACT_OK : DROP_INVALID_SIP;
	/* 2. Asking for its own address it probes for a duplicate: silence is the right answer. */
	if (arp.tpa == endpoint_ipv4)
		return TC_ACT_OK;
	/* 3. Anything else is at the host end of this veth, whatever the address. */
	ret = arp_write_reply(ctx, &arp, interface_mac);
	return ret < 0 ? ret : bpf_redirect(interface_ifindex, 0);
}

TAIL_CALL("cilium_calls/6") int tail_handle_arp(struct __sk_buff *ctx)
{
	struct drop_info drop = { .from_self = true, .dir = METRIC_EGRESS };
	int ret;

	mind_enter(ctx, MIND_PROGRAM_HANDLE_ARP);
	ret = handle_arp(ctx);
	if (ret < 0)
		return drop_notify(ctx, ret, &drop);
	return ret;
}

/* What conntrack found, policy on it, and the way from there. A verdict or a DROP_*. */
static __always_inline int leave_lxc(struct __sk_buff *ctx, struct drop_info *drop)
{
	struct leaving out = {
		.trace = { .from_self = true },
		.rev_nat_index = cb_get(ctx, CB_LB_STATE) >> 16,
		.hairpin = cb_get(ctx, CB_LB_STATE) & 1,
	};
	int ret;

	ret = handle_ipv4_from_lxc(ctx, &out, drop);
	if (unlikely(ret < 0)) {
		know_receiver(ctx, &out, drop);
		return ret;
	}
	return custom_call(ctx, CUSTOM_IPV4_EGRESS, ret, drop->dst_label);
}

/* Conntrack, and what follows it. A verdict or a DROP_*. */
static __always_inline int track_and_leave_lxc(struct __sk_buff *ctx, struct drop_info *drop)
{
	int ret = ct_lookup_into_buffer(ctx, CT_EGRESS, false);

	return unlikely(ret < 0) ? ret : leave_lxc(ctx, drop);
}

/* All of it in from-container itself, but for what may have to be translated: that goes the long
 * way from here. A verdict or a DROP_*. */
static __always_inline int handle_ipv4_at_once(struct __sk_buff *ctx, struct drop_info *drop)
{
	struct iphdr *ip4 = ipv4_header(ctx);
	int ret = check_from_lxc(ctx, ip4);

	if (unlikely(ret || !ip4))
		return ret;
	if (unlikely(may_be_for_service(ctx, ip4)))
		return tail_call(ctx, CALL_IPV4, &drop->ext_err);
	cb_set(ctx, CB_LB_STATE, 0);
	return track_and_leave_lxc(ctx, drop);
}

/* Is it the pod's, is it for a service? Then on to conntrack. */
TAIL_CALL("cilium_calls/7") int tail_handle_ipv4(struct __sk_buff *ctx)
{
	struct drop_info drop = { .from_self = true, .dir = METRIC_EGRESS };
	struct iphdr *ip4 = ipv4_header(ctx);
	int ret;

	mind_enter(ctx, MIND_PROGRAM_HANDLE_IPV4);
	ret = check_from_lxc(ctx, ip4);
	cb_set(ctx, CB_LB_STATE, 0);
	if (likely(!ret && ip4) && unlikely(may_be_for_service(ctx, ip4)))
		ret = translate_from_lxc(ctx);
	if (likely(!ret))
		ret = tail_call(ctx, CALL_CT_EGRESS, &drop.ext_err);
	return drop_notify(ctx, ret, &drop);
}

TAIL_CALL("cilium_calls/29") int tail_ipv4_ct_egress(struct __sk_buff *ctx)
{
	struct drop_info drop = { .from_self = true, .dir = METRIC_EGRESS };
	int ret;

	mind_enter(ctx, MIND_PROGRAM_CT_EGRESS);
	if (inline_tail_calls) {
		ret = track_and_leave_lxc(ctx, &drop);
	} else {
		ret = ct_lookup_into_buffer(ctx, CT_EGRESS, false);
		if (likely(!ret))
			ret = tail_call(ctx, CALL_IPV4_CONT, &drop.ext_err);
	}
	return unlikely(ret < 0) ? drop_notify(ctx, ret, &drop) : ret;
}

TAIL_CALL("cilium_calls/25") int tail_handle_ipv4_cont(struct __sk_buff *ctx)
{
	struct drop_info drop = { .from_self = true, .dir = METRIC_EGRESS };
	int ret;

	mind_enter(ctx, MIND_PROGRAM_HANDLE_IPV4_CONT);
	ret = leave_lxc(ctx, &drop);
	return unlikely(ret < 0) ? drop_notify(ctx, ret, &drop) : ret;
}

/* The pod answers itself: what it answers to is its own address, and it receives it at once. */
static __always_inline int hairpin_answer(struct __sk_buff *ctx, const struct flow4 *flow)
{
	struct delivery from = {
		.src_label = security_identity,
		.flags = DELIVERY_PEER | DELIVERY_HAIRPIN,
	};
	struct rewrite4 change = {
		.old_addr = service_loopback_ipv4,
		.new_addr = endpoint_ipv4,
		.old_port = flow4_dport(flow),
		.new_port = flow4_dport(flow),
		.l3_off = IPV4_OFF,
		.l4_off = flow->l4_off,
		.side = REWRITE_DST,
		.proto = flow->proto,
		.has_l4 = flow->has_l4,
	};
	const struct endpoint_info *self = endpoint_lookup4(ctx, endpoint_ipv4);
	int ret = flow->error ? rewrite4_quote(ctx, &change) : rewrite4(ctx, &change);

	if (ret < 0 || !self)
		return ret < 0 ? ret : DROP_EP_NOT_READY;
	return deliver_local4(ctx, self, &from);
}

/* What this pod answers comes from the service: to itself, to a client beside it that asked
 * another node (DSR), or to one elsewhere, whom it leaves for directly. A verdict or a DROP_*. */
static __always_inline int service_answer(struct __sk_buff *ctx, struct drop_info *drop)
{
	struct delivery from = { .src_label = security_identity, .flags = DELIVERY_PEER };
	struct trace_info trace = { .src_label = security_identity, .reason = CT_REPLY };
	const struct ct_buffer4 *ct = ct_buffer();
	const struct endpoint_info *ep;
	struct flow4 flow;
	int ret;

	if (!ct)
		return DROP_INVALID_TC_BUFFER;
	flow = ct->flow;
	if (enable_dsr && ct->state.flags & CT_F_DSR)
		ret = dsr_answer(ctx, &flow);
	else
		ret = lb4_rev_nat(ctx, &flow, ct->state.rev_nat_index);
	if (ret < 0)
		return ret;
	if (ct->state.flags & CT_F_LB_LOOPBACK)
		return hairpin_answer(ctx, &flow);
	ep = endpoint_lookup4(ctx, flow.tuple.daddr);
	if (ep && !(ep->flags & ENDPOINT_F_HOST))
		return deliver_local4(ctx, ep, &from);
	/* The client is this node, which asked another one: no route leads there. */
	if (ep) {
		trace_notify(ctx, TRACE_TO_STACK, &trace);
		return pass_to_stack(ctx, security_identity);
	}
	return leave_for_client(ctx, flow.tuple.daddr, drop);
}

TAIL_CALL("cilium_calls/17") int tail_rev_nodeport_lb4(struct __sk_buff *ctx)
{
	struct drop_info drop = { .from_self = true, .dir = METRIC_EGRESS };
	int ret;

	mind_enter(ctx, MIND_PROGRAM_NODEPORT_REVNAT);
	ret = service_answer(ctx, &drop);
	if (ret < 0)
		return drop_notify(ctx, ret, &drop);
	return ret;
}

/* What conntrack found, and policy on it: the way into the pod. A verdict or a DROP_*. */
static __always_inline int enter_lxc(struct __sk_buff *ctx, const enum lxc_door door)
{
	const struct ct_buffer4 *ct = ct_buffer();
	struct trace_info trace = trace_to_lxc(ctx);
	__u32 delivery = cb_get(ctx, CB_DELIVERY);
	int ret;

	ret = ct ? ipv4_policy(ctx, ct, &trace) : DROP_INVALID_TC_BUFFER;
	if (unlikely(ret < 0))
		return ret;
	trace_notify(ctx, TRACE_TO_LXC, &trace);
	if (door == DOOR_TO_CONTAINER)
		ret = TC_ACT_OK;
	/* Straight into the pod's namespace, where the hook we run on can; else to its veth. */
	else if (enable_host_routing && delivery & DELIVERY_PEER)
		ret = bpf_redirect_peer(interface_ifindex, 0);
	else
		ret = bpf_redirect(interface_ifindex, 0);
	return custom_call(ctx, CUSTOM_IPV4_INGRESS, ret, trace.src_label);
}

/* Conntrack and policy in one go, where the programs between are left out. */
static __always_inline int track_and_enter_lxc(struct __sk_buff *ctx, const enum lxc_door door)
{
	bool again = door == DOOR_POLICY && cb_get(ctx, CB_DELIVERY) & DELIVERY_TRACKED;
	int ret = ct_lookup_into_buffer(ctx, CT_INGRESS, again);

	return unlikely(ret < 0) ? ret : enter_lxc(ctx, door);
}

/* Ingress policy of this endpoint: called through cilium_call_policy by whoever delivers to it. */
TAIL_CALL("cilium_call_policy/ENDPOINT_ID") int handle_policy(struct __sk_buff *ctx)
{
	struct drop_info drop = drop_to_lxc(ctx);
	int ret;

	mind_enter(ctx, MIND_PROGRAM_HANDLE_POLICY);
	if (inline_tail_calls && !enable_endpoint_routes)
		ret = track_and_enter_lxc(ctx, DOOR_POLICY);
	else
		ret = tail_call(ctx, CALL_CT_INGRESS_POLICY, &drop.ext_err);
	return unlikely(ret < 0) ? drop_notify(ctx, ret, &drop) : ret;
}

TAIL_CALL("cilium_calls/28") int tail_ipv4_ct_ingress_policy_only(struct __sk_buff *ctx)
{
	struct drop_info drop = drop_to_lxc(ctx);
	int ret;

	mind_enter(ctx, MIND_PROGRAM_CT_INGRESS_POLICY);
	/* With a route per endpoint nobody comes this way: policy waits in to-container. */
	ret = enable_endpoint_routes ? DROP_EP_NOT_READY : ct_lookup_into_buffer(ctx, CT_INGRESS, false);
	if (likely(!ret))
		ret = tail_call(ctx, CALL_IPV4_POLICY, &drop.ext_err);
	return drop_notify(ctx, ret, &drop);
}

TAIL_CALL("cilium_calls/11") int tail_ipv4_policy(struct __sk_buff *ctx)
{
	struct drop_info drop = drop_to_lxc(ctx);
	int ret;

	mind_enter(ctx, MIND_PROGRAM_IPV4_POLICY);
	ret = enable_endpoint_routes ? DROP_EP_NOT_READY : enter_lxc(ctx, DOOR_POLICY);
	return unlikely(ret < 0) ? drop_notify(ctx, ret, &drop) : ret;
}

TAIL_CALL("cilium_calls/27") int tail_ipv4_ct_ingress(struct __sk_buff *ctx)
{
	struct drop_info drop = drop_to_lxc(ctx);
	int ret;

	mind_enter(ctx, MIND_PROGRAM_CT_INGRESS);
	ret = enable_endpoint_routes ? ct_lookup_into_buffer(ctx, CT_INGRESS, false) : DROP_EP_NOT_READY;
	if (!ret)
		ret = tail_call(ctx, CALL_IPV4_TO_ENDPOINT, &drop.ext_err);
	return drop_notify(ctx, ret, &drop);
}

TAIL_CALL("cilium_calls/13") int tail_ipv4_to_endpoint(struct __sk_buff *ctx)
{
	struct drop_info drop = drop_to_lxc(ctx);
	int ret;

	mind_enter(ctx, MIND_PROGRAM_IPV4_TO_ENDPOINT);
	ret = enable_endpoint_routes ? enter_lxc(ctx, DOOR_TO_CONTAINER) : DROP_EP_NOT_READY;
	return ret < 0 ? drop_notify(ctx, ret, &drop) : ret;
}

/* tc egress of the pod's veth, reached through the stack: with a route per endpoint. */
SEC("to-container") int cil_to_container(struct __sk_buff *ctx)
{
	__u32 magic = ctx->mark & MARK_MAGIC_MASK;
	struct drop_info drop = { .to_self = true, .dir = METRIC_INGRESS };
	struct iphdr *ip4;
	int ret;

	cb_clear(ctx);
	mind_enter(ctx, MIND_PROGRAM_TO_CONTAINER);
	/* Without routes per endpoint handle_policy has decided already. */
	if (!enable_endpoint_routes)
		return TC_ACT_OK;

	/* 1. ARP of the node's stack for the pod's address passes. */
	if (ctx->protocol == bpf_htons(ETH_P_ARP))
		return TC_ACT_OK;
	if (ctx->protocol != bpf_htons(ETH_P_IP))
		return drop_notify(ctx, DROP_UNKNOWN_L3, &drop);
	ip4 = ipv4_header(ctx);
	if (!ip4 || !ipv4_is_sane(ctx, ip4))
		return drop_notify(ctx, DROP_INVALID, &drop);

	/* 2. Who sent it: the mark, the node itself, or whoever the address belongs to. */
	if (magic == MARK_MAGIC_IDENTITY)
		drop.src_label = identity_of_mark(ctx->mark);
	else if (magic == MARK_MAGIC_HOST || !ctx->ingress_ifindex)
		drop.src_label = IDENTITY_HOST;
	else
		drop.src_label = ipcache_sender4(ctx, ip4->saddr);

	/* 3. Policy, in the pod's own programs; it has judged the pod's own answer already. */
	cb_set(ctx, CB_SRC_LABEL, drop.src_label);
	if (magic == MARK_MAGIC_IDENTITY && ctx->mark & MARK_HAIRPIN)
		cb_set(ctx, CB_DELIVERY, DELIVERY_HAIRPIN);
	if (inline_tail_calls)
		ret = track_and_enter_lxc(ctx, DOOR_TO_CONTAINER);
	else
		ret = tail_call(ctx, CALL_CT_INGRESS, &drop.ext_err);
	return ret < 0 ? drop_notify(ctx, ret, &drop) : ret;
}

/* tc ingress of the pod's veth: everything the pod sends. */
SEC("from-container") int cil_from_container(struct __sk_buff *ctx)
{
	struct trace_info trace = { .from_self = true };
	struct drop_info drop = { .from_self = true, .dir = METRIC_EGRESS };
	int ret;

	/* 1. Nothing of an earlier hook may speak for this packet. */
	cb_clear(ctx);
	ctx->tc_classid = 0;
	ctx->mark = 0;
	mind_enter(ctx, MIND_PROGRAM_FROM_CONTAINER);

	/* 2. Tell that it came. */
	trace_notify(ctx, TRACE_FROM_LXC, &trace);

	/* 3. Which protocol? */
	if (unlikely(eth_has_vlan(ctx)))
		ret = DROP_VLAN_FILTERED;
	else if (likely(ctx->protocol == bpf_htons(ETH_P_IP)))
		ret = inline_tail_calls ? handle_ipv4_at_once(ctx, &drop) :
					  tail_call(ctx, CALL_IPV4, &drop.ext_err);
	else if (ctx->protocol == bpf_htons(ETH_P_ARP))
		ret = tail_call(ctx, CALL_ARP, &drop.ext_err);
	else
		ret = DROP_UNKNOWN_L3;
	return unlikely(ret < 0) ? drop_notify(ctx, ret, &drop) : ret;
}
