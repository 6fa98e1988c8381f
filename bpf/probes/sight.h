/* SPDX-License-Identifier: GPL-2.0 */
/* From a socket buffer to a record: what every probe does once it has decided to tell. */
#ifndef LAB_PROBES_SIGHT_H
#define LAB_PROBES_SIGHT_H

#include "filter.h"

#define NF_PREROUTING 0
#define NF_LOCAL_IN 1
#define XDP_MODE_DRIVER 1
#define XFRM_IN 0
#define XFRM_BLOCK 1

static __always_inline u32 netns_of(const struct net_device *dev)
{
	return dev ? dev->nd_net.net->ns.inum : 0;
}

/* Copies the packet from its Ethernet header if it has one in front of its network header. */
static __always_inline void copy_packet(const struct sk_buff *skb, struct record *record)
{
	const u32 room = take_stacks ? RECORD_PACKET_BYTES : LIGHT_PACKET_BYTES;
	u32 start = network_offset(skb), end = skb->tail, mac = skb->mac_header, size;

	record->link = LINK_IP;
	if (mac != UNSET_HEADER && start >= mac && start - mac == ETHERNET_HEADER) {
		record->link = LINK_ETHERNET;
		start = mac;
	}
	/* the buffer's own length counts from wherever its layer has got to */
	record->len = skb->len + (u32)(skb->data - skb->head) - start;
	size = end - start;
	if (end <= start)
		return;
	if (size > room)
		size = room;
	if (!bpf_probe_read_kernel(record->packet, size, skb->head + start))
		record->captured = size;
}

static __always_inline void fill_buffer(struct record *record, const struct sk_buff *skb)
{
	record->skb = (u64)skb;
	record->head = (u64)skb->head;
	record->mark = skb->mark;
	record->hash = skb->hash;
	record->cookie = read_cookie(skb);
	copy_packet(skb, record);
}

/* A program on the way out may drop a packet before anything else reports it. */
static __always_inline bool tells_first(u16 kind)
{
	return kind == KIND_DEV_QUEUE || kind == KIND_RECEIVE_SKB || kind == KIND_FREE ||
	       kind == KIND_CGROUP_EGRESS;
}

/* A record about a buffer in a namespace that the caller knows, unless nobody wants it. */
static __always_inline struct record *sight_in(u16 kind, const struct sk_buff *skb,
					       const struct net_device *dev, u32 netns)
{
	struct record *record;

	if (!wanted(skb, netns, tells_first(kind)))
		return NULL;
	record = record_begin(kind);
	if (!record)
		return NULL;
	record->netns = netns;
	record->ifindex = dev ? dev->ifindex : 0;
	fill_buffer(record, skb);
	return record;
}

/* The same where the buffer's device says in which namespace it is. */
static __always_inline struct record *sight(u16 kind, const struct sk_buff *skb,
					    const struct net_device *dev)
{
	return may_be_wanted(tells_first(kind)) ? sight_in(kind, skb, dev, netns_of(dev)) : NULL;
}

static __always_inline u32 tc_config(const struct net_device *dev)
{
	if (bpf_core_field_exists(dev->tcx_ingress))
		return dev->tcx_ingress ? CONFIG_TC_INGRESS : 0;
	if (bpf_core_field_exists(dev->miniq_ingress))
		return dev->miniq_ingress ? CONFIG_TC_INGRESS : 0;
	return 0;
}

/* How the receiving device is set up right now: why steps are, or are not, on the way. */
static __always_inline u32 receive_config(const struct sk_buff *skb)
{
	const struct net_device *dev = skb->dev;
	const struct net *net = dev->nd_net.net;
	u32 config = CONFIG_KNOWN | tc_config(dev);

	if (BPF_CORE_READ_BITFIELD(skb, redirected))
		config |= CONFIG_REDIRECTED;
	if (dev->xdp_state[XDP_MODE_DRIVER].prog)
		config |= CONFIG_XDP_DRIVER;
	if (dev->xdp_prog)
		config |= CONFIG_XDP_GENERIC;
	if ((u64)dev->ptype_all.next != (u64)&dev->ptype_all)
		config |= CONFIG_TAPS;
	/* sockets bound to no device: of the namespace on newer kernels, else not to be known */
	if (bpf_core_field_exists(net->ptype_all) &&
	    (u64)net->ptype_all.next != (u64)&net->ptype_all)
		config |= CONFIG_TAPS;
	if (dev->nf_hooks_ingress)
		config |= CONFIG_NF_INGRESS;
	if (dev->rx_handler)
		config |= CONFIG_RX_HANDLER;
	if (net->nf.hooks_ipv4[NF_PREROUTING])
		config |= CONFIG_NF_PREROUTING;
	if (net->nf.hooks_ipv4[NF_LOCAL_IN])
		config |= CONFIG_NF_INPUT;
	if (net->xfrm.policy_count[XFRM_IN] || net->xfrm.policy_default[XFRM_IN] == XFRM_BLOCK)
		config |= CONFIG_XFRM_POLICY_IN;
	return config;
}

#endif
