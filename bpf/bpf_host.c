// SPDX-License-Identifier: GPL-2.0
/*
 * The node's side of the datapath.
 *
 *   cilium_host  tc egress   from-host ─► 22 IPv4   the node sends to pods, near and far
 *   cilium_host  tc ingress  to-host                the last hop into the node's stack
 *   cilium_net   tc ingress  to-host                the same, from the other end of the pair
 *   eth0         tc ingress  from-netdev ─► 7 IPv4  from the underlay: NodePort (15, 17, 20, 36),
 *                                                   then the stack or, host routing, the pod
 *   eth0         tc egress   to-netdev ─► 19 ─► 38  to the underlay: answers of services,
 *                                                   masquerade
 */
#define THIS_FILE FILE_BPF_HOST

#include "lib/common.h"
#include "lib/config.h"
#include "lib/drop.h"
#include "lib/dsr.h"
#include "lib/encap.h"
#include "lib/eps.h"
#include "lib/host.h"
#include "lib/identity.h"
#include "lib/ipcache.h"
#include "lib/ipv4.h"
#include "lib/local_delivery.h"
#include "lib/masquerade.h"
#include "lib/nodeport.h"
#include "lib/tailcall.h"
#include "lib/trace.h"
#include "lib/unused.h"

/* From cilium_host into the cluster: a pod here, a pod behind the tunnel, or the stack again.
 * A verdict or a DROP_*. */
static __always_inline int route_from_host(struct __sk_buff *ctx, struct drop_info *drop)
{
	struct trace_info trace = {};
	struct delivery from = { .from_host = drop->src_label == IDENTITY_HOST };
	const struct remote_endpoint_info *remote;
	struct iphdr *ip4 = ipv4_header(ctx);
	const struct endpoint_info *ep;
	__be32 daddr, node;

	if (!ip4 || !ipv4_is_sane(ctx, ip4))
		return DROP_INVALID;
	daddr = ip4->daddr;

	/* 1. Who is it from, if the mark did not say? */
	if (drop->src_label == IDENTITY_WORLD)
		drop->src_label = ipcache_sender4(ctx, ip4->saddr);
	from.src_label = drop->src_label;
	trace.src_label = drop->src_label;

	/* 2. A pod of this node. */
	ep = endpoint_lookup4(ctx, daddr);
	if (ep && !(ep->flags & ENDPOINT_F_HOST))
		return deliver_local4(ctx, ep, &from);

	/* 3. A pod of another node. */
	remote = ipcache_lookup4(ctx, daddr);
	trace.dst_label = remote && remote->sec_identity ? remote->sec_identity : IDENTITY_WORLD;
	drop->dst_label = trace.dst_label;
	node = enable_tunnel && !ep ? tunnel_endpoint4(ctx, remote, daddr) : 0;
	if (node)
		return encap_redirect(ctx, node, &trace);

	/* 4. An address of this node: across the pair. */
	if (ep) {
		trace_notify(ctx, TRACE_TO_HOST, &trace);
		return TC_ACT_OK;
	}
	return DROP_UNROUTABLE;
}

/* From the underlay, services done with: the stack knows what is for the node and, through
 * cilium_host, for its pods; with host routing a pod gets it from here. A verdict or a DROP_*. */
static __always_inline int route_from_netdev(struct __sk_buff *ctx, struct drop_info *drop)
{
	struct delivery from = { .flags = DELIVERY_PEER };
	struct iphdr *ip4 = ipv4_header(ctx);
	const struct endpoint_info *ep;
	__be32 saddr;

	if (!enable_host_routing)
		return TC_ACT_OK;
	if (!ip4)
		return DROP_INVALID;
	saddr = ip4->saddr;
	ep = endpoint_lookup4(ctx, ip4->daddr);
	if (!ep || ep->flags & ENDPOINT_F_HOST)
		return TC_ACT_OK;
	from.src_label = ipcache_sender4(ctx, saddr);
	drop->src_label = from.src_label;
	return deliver_local4(ctx, ep, &from);
}

/* The outer packet of a tunnel: what matters is inside, and comes out of cilium_vxlan. */
static __always_inline bool is_tunnel_packet(const struct flow4 *flow)
{
	return enable_tunnel && flow->proto == IPPROTO_UDP &&
	       flow4_dport(flow) == bpf_htons(VXLAN_PORT) && flow->tuple.daddr == node_ipv4;
}

/* The same, seen at once of a usual one: nothing else of it is asked. */
static __always_inline bool is_plain_tunnel_packet(struct __sk_buff *ctx)
{
	const struct iphdr *ip4 = ctx_data(ctx) + IPV4_OFF;
	const struct frag_ports *ports;

	if (!enable_tunnel || (const void *)(ip4 + 1) > ctx_data_end(ctx))
		return false;
	ports = (const void *)ip4 + ipv4_hlen(ip4);
	return ip4->protocol == IPPROTO_UDP && ip4->daddr == node_ipv4 &&
	       ipv4_is_sane(ctx, ip4) && !ipv4_is_fragment(ip4) &&
	       (const void *)(ports + 1) <= ctx_data_end(ctx) &&
	       bpf_ntohs(ip4->tot_len) - ipv4_hlen(ip4) >= (int)l4_min_len(IPPROTO_UDP) &&
	       ports->dport == bpf_htons(VXLAN_PORT);
}

/* Services on the uplink. TC_ACT_OK, a DROP_*, or does not return. */
static __always_inline int nodeport_from_netdev(struct __sk_buff *ctx, struct drop_info *drop)
{
	struct flow4 flow = {};
	struct lb4_request request = { .flow = &flow };
	int ret = flow4_read(ctx, &flow);

	/* Protocols without ports are not for services: the stack's. */
	if (ret == DROP_CT_UNKNOWN_PROTO)
		return nodeport_done(ctx, &drop->ext_err);
	if (ret < 0)
		return ret;
	if (is_tunnel_packet(&flow))
		return TC_ACT_OK;
	if (enable_nodeport) {
		ret = enable_dsr ? dsr_learn(ctx, &flow) : 0;
		if (ret > 0)
			ret = nodeport_track(ctx, 0, CT_F_DSR);
		else if (!ret)
			nodeport_forget(&flow);
		if (ret < 0)
			return ret;
		ret = nodeport_lb4(ctx, &request);
		if (ret < 0)
			return ret;
		if (ret == NODEPORT_LOCAL)
			return nodeport_done(ctx, &drop->ext_err);
		if (ret == NODEPORT_REMOTE && enable_dsr) {
			cb_set(ctx, CB_DSR_ADDR, request.key.address);
			cb_set(ctx, CB_DSR_PORT, request.key.dport);
			return tail_call(ctx, CALL_NODEPORT_DSR, &drop->ext_err);
		}
		if (ret == NODEPORT_REMOTE)
			return tail_call(ctx, CALL_NODEPORT_NAT_EGRESS, &drop->ext_err);
	}
	return tail_call(ctx, CALL_NODEPORT_NAT_INGRESS, &drop->ext_err);
}

/* A remote backend gets the client's packet with the service's address in an option: on the first
 * of a TCP flow, on every one of others. A verdict or a DROP_*. */
static __always_inline int nodeport_dsr(struct __sk_buff *ctx, struct drop_info *drop)
{
	__be32 addr = cb_get(ctx, CB_DSR_ADDR);
	__be16 port = cb_get(ctx, CB_DSR_PORT);
	struct flow4 flow = {};
	__u32 fib_err = 0;
	int ret = flow4_read(ctx, &flow);

	if (ret < 0)
		return ret;
	/* A pod that is its own backend would refuse its own address as source. */
	if (flow.tuple.saddr == flow.tuple.daddr)
		return tail_call(ctx, CALL_NODEPORT_NAT_EGRESS, &drop->ext_err);
	if (flow.proto != IPPROTO_TCP || flow.tcp_flags & TCP_FLAG_SYN) {
		ret = dsr_add_option(ctx, addr, port);
		if (ret == DROP_FRAG_NEEDED)
			return dsr_too_big(ctx, &flow, addr, port);
		if (ret < 0)
			return ret;
	}
	ctx->mark = MARK_MAGIC_SNAT_DONE;
	ret = fib_redirect4(ctx, &fib_err);
	drop->ext_err = fib_err;
	return ret;
}

static __always_inline struct drop_info drop_from_cb(const struct __sk_buff *ctx)
{
	return (struct drop_info){ .src_label = cb_get(ctx, CB_SRC_LABEL), .dir = METRIC_EGRESS };
}

static __always_inline int trace_to_network(struct __sk_buff *ctx, __u32 label)
{
	/* No conntrack of this hook's says that it is new: told only without aggregation. */
	struct trace_info trace = { .src_label = label, .to_wire = true, .quiet = true };

	trace_notify(ctx, TRACE_TO_NETWORK, &trace);
	return TC_ACT_OK;
}

TAIL_CALL("cilium_calls/22") int tail_handle_ipv4_from_host(struct __sk_buff *ctx)
{
	struct drop_info drop = drop_from_cb(ctx);
	int ret;

	mind_enter(ctx, MIND_PROGRAM_IPV4_FROM_HOST);
	ret = route_from_host(ctx, &drop);
	if (ret < 0)
		return drop_notify(ctx, ret, &drop);
	return ret;
}

TAIL_CALL("cilium_calls/7") int tail_handle_ipv4_from_netdev(struct __sk_buff *ctx)
{
	struct drop_info drop = { .src_label = IDENTITY_WORLD, .dir = METRIC_INGRESS };
	struct iphdr *ip4 = ipv4_header(ctx);
	int ret;

	mind_enter(ctx, MIND_PROGRAM_IPV4_FROM_NETDEV);
	if (unlikely(!ip4 || !ipv4_is_sane(ctx, ip4)))
		return drop_notify(ctx, DROP_INVALID, &drop);
	if (nat_enabled() && !cb_get(ctx, CB_NODEPORT))
		ret = nodeport_from_netdev(ctx, &drop);
	else
		ret = route_from_netdev(ctx, &drop);
	if (unlikely(ret < 0))
		return drop_notify(ctx, ret, &drop);
	return ret;
}

TAIL_CALL("cilium_calls/20") int tail_nodeport_ipv4_dsr(struct __sk_buff *ctx)
{
	struct drop_info drop = { .src_label = IDENTITY_WORLD, .dir = METRIC_EGRESS };
	int ret;

	mind_enter(ctx, MIND_PROGRAM_NODEPORT_DSR);
	ret = enable_dsr ? nodeport_dsr(ctx, &drop) : DROP_NAT_NOT_NEEDED;
	if (ret < 0)
		return drop_notify(ctx, ret, &drop);
	return ret;
}

/* What leaves may be a backend's answer, of a process on the node itself: it comes from the
 * service. (A pod's was translated where the pod sent it.) */
TAIL_CALL("cilium_calls/19") int tail_handle_nat_fwd_ipv4(struct __sk_buff *ctx)
{
	struct drop_info drop = drop_from_cb(ctx);
	int ret;

	mind_enter(ctx, MIND_PROGRAM_NODEPORT_NAT_FWD);
	ret = enable_nodeport ? nodeport_rev_dnat(ctx) : 0;
	/* Protocols without ports have no flow to look for. */
	if (ret == DROP_CT_UNKNOWN_PROTO || ret == 1)
		return trace_to_network(ctx, drop.src_label);
	if (!ret)
		ret = tail_call(ctx, CALL_SNAT_FWD, &drop.ext_err);
	return drop_notify(ctx, ret, &drop);
}

/* ... or a packet that must not show its own source outside. */
TAIL_CALL("cilium_calls/38") int tail_handle_snat_fwd_ipv4(struct __sk_buff *ctx)
{
	struct drop_info drop = drop_from_cb(ctx);
	struct flow4 flow = {};
	__be32 addr = 0;
	int ret;

	mind_enter(ctx, MIND_PROGRAM_SNAT_FWD);
	if (!nat_enabled())
		return drop_notify(ctx, DROP_NAT_NOT_NEEDED, &drop);
	ret = flow4_read(ctx, &flow);
	if (!ret)
		addr = masquerade_address(ctx, &flow);
	if (addr && flow.tuple.saddr == addr)
		ret = track_node_flow(ctx, &flow, CT_EGRESS);
	if (!ret)
		ret = snat_egress(ctx, &flow, addr);
	if (ret < 0 && ret != DROP_CT_UNKNOWN_PROTO)
		return drop_notify(ctx, ret, &drop);
	return trace_to_network(ctx, drop.src_label);
}

/* tc ingress of cilium_host and of cilium_net. */
SEC("to-host") int cil_to_host(struct __sk_buff *ctx)
{
	struct trace_info trace = { .dst_label = IDENTITY_HOST, .ifindex = interface_ifindex };

	cb_clear(ctx);
	mind_enter(ctx, MIND_PROGRAM_TO_HOST);
	/* 1. Who sent it: said by the mark of the program that redirected here. */
	if ((ctx->mark & MARK_MAGIC_MASK) == MARK_MAGIC_IDENTITY)
		trace.src_label = identity_of_mark(ctx->mark);
	/* 2. Into the stack. */
	trace_notify(ctx, TRACE_TO_HOST, &trace);
	return TC_ACT_OK;
}

/* tc egress of cilium_host. */
SEC("from-host") int cil_from_host(struct __sk_buff *ctx)
{
	struct drop_info drop = { .src_label = identity_from_host(ctx), .dir = METRIC_EGRESS };
	struct trace_info trace = { .src_label = drop.src_label };
	int ret;

	/* 1. The mark has said what it had to say. */
	cb_clear(ctx);
	ctx->mark = 0;
	mind_enter(ctx, MIND_PROGRAM_FROM_HOST);

	/* 2. ARP for addresses behind us: nobody answers on the other end, and nobody needs to. */
	if (ctx->protocol == bpf_htons(ETH_P_ARP))
		return TC_ACT_OK;
	trace_notify(ctx, TRACE_FROM_HOST, &trace);

	/* 3. Which protocol? */
	cb_set(ctx, CB_SRC_LABEL, drop.src_label);
	if (ctx->protocol == bpf_htons(ETH_P_IP))
		ret = tail_call(ctx, CALL_IPV4_FROM_HOST, &drop.ext_err);
	else
		ret = DROP_UNKNOWN_L3;
	return drop_notify(ctx, ret, &drop);
}

/* tc egress of the uplink. */
SEC("to-netdev") int cil_to_netdev(struct __sk_buff *ctx)
{
	__u32 magic = ctx->mark & MARK_MAGIC_MASK;
	struct drop_info drop = { .src_label = IDENTITY_HOST, .dir = METRIC_EGRESS };
	int ret;

	cb_clear(ctx);
	mind_enter(ctx, MIND_PROGRAM_TO_NETDEV);

	/* 1. Who sends: a pod through the stack or the tunnel, or the node. */
	if (magic == MARK_MAGIC_OVERLAY || magic == MARK_MAGIC_IDENTITY)
		drop.src_label = identity_of_mark(ctx->mark);

	/* 2. The tunnel's outer packets and what NodePort translated are finished. */
	if (!nat_enabled() || ctx->protocol != bpf_htons(ETH_P_IP) ||
	    magic == MARK_MAGIC_OVERLAY || magic == MARK_MAGIC_SNAT_DONE)
		return trace_to_network(ctx, drop.src_label);

	/* 3. NAT. */
	cb_set(ctx, CB_SRC_LABEL, drop.src_label);
	ret = tail_call(ctx, CALL_NODEPORT_NAT_FWD, &drop.ext_err);
	return drop_notify(ctx, ret, &drop);
}

/* tc ingress of the uplink. */
SEC("from-netdev") int cil_from_netdev(struct __sk_buff *ctx)
{
	struct drop_info drop = { .src_label = IDENTITY_WORLD, .dir = METRIC_INGRESS };
	struct trace_info trace = { .to_wire = true };
	int ret;

	/* 1. Nothing of the other end may speak for this packet. */
	cb_clear(ctx);
	ctx->mark = 0;
	mind_enter(ctx, MIND_PROGRAM_FROM_NETDEV);

	/* 2. No VLAN is configured here: a tagged frame belongs to another network. */
	if (unlikely(eth_has_vlan(ctx)))
		return drop_notify(ctx, DROP_VLAN_FILTERED, &drop);

	/* 3. The underlay's own protocols and the tunnel's packets are the stack's. */
	trace_notify(ctx, TRACE_FROM_NETWORK, &trace);
	if (ctx->protocol != bpf_htons(ETH_P_IP) || is_plain_tunnel_packet(ctx))
		return TC_ACT_OK;
	ret = tail_call(ctx, CALL_IPV4, &drop.ext_err);
	return drop_notify(ctx, ret, &drop);
}
