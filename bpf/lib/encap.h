/* SPDX-License-Identifier: GPL-2.0 */
/*
 * VXLAN in collect-metadata mode: one device for all nodes. We hang the outer addresses and the
 * VNI on the packet and hand it to the device; the VNI is the identity of the sender.
 */
#pragma once

#include "common.h"
#include "config.h"
#include "drop_reasons.h"
#include "identity.h"
#include "ipcache.h"
#include "trace.h"

#define TUNNEL_TTL 64
#define VXLAN_PORT 8472 /* Linux's default, not IANA's 4789 */

/* 1.13's key: the network address of a pod CIDR. */
struct tunnel_map_key {
	__be32 ip4;
	__u32 ip_rest[3]; /* rest of an IPv6 address, else 0 */
	__u8 family;
	__u8 cluster_id;
	__u16 pad;
};

struct tunnel_map_value {
	__be32 ip4;
	__u32 ip_rest[3]; /* rest of an IPv6 address, else 0 */
	__u8 family;
	__u8 key; /* encryption key index */
	__u16 pad;
};

_Static_assert(sizeof(struct tunnel_map_key) == 20, "cilium_tunnel_map key");
_Static_assert(sizeof(struct tunnel_map_value) == 20, "cilium_tunnel_map value");

/* Written by the agent, one entry per remote node; read when the ipcache does not know the node
 * of a pod yet. Capacity: Cilium's. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct tunnel_map_key);
	__type(value, struct tunnel_map_value);
} cilium_tunnel_map SEC(".maps");

/* Node behind which `daddr` lives, 0 when it is not behind the tunnel. */
static __always_inline __be32 tunnel_endpoint4(struct __sk_buff *ctx,
					       const struct remote_endpoint_info *info,
					       __be32 daddr)
{
	struct tunnel_map_key key = { .ip4 = daddr & pod_cidr_mask, .family = FAMILY_IPV4 };
	const struct tunnel_map_value *node;

	if (info && info->tunnel_endpoint)
		return info->tunnel_endpoint;
	node = bpf_map_lookup_elem(&cilium_tunnel_map, &key);
	if (mind_armed(ctx)) {
		struct mind_note note = MIND_NOTE(MIND_LOOKUP, MIND_MAP_TUNNEL, 0);

		mind_fill(&note, &key, sizeof(key), node, sizeof(*node));
		mind_write(ctx, &note);
	}
	return node ? node->ip4 : 0;
}

/* Sends the packet to `node` (network byte order) as the sender of `info`; TC_ACT_REDIRECT or a
 * DROP_*. The host becomes remote-node: "host" is only ever the receiver's own. */
static __always_inline int encap_redirect(struct __sk_buff *ctx, __be32 node,
					  struct trace_info *info)
{
	__u32 sender = trace_sender(info);
	struct bpf_tunnel_key key = {
		.tunnel_id = sender == IDENTITY_HOST ? IDENTITY_REMOTE_NODE : sender,
		.remote_ipv4 = bpf_ntohl(node), /* the helper wants host byte order */
		.tunnel_ttl = TUNNEL_TTL,
	};

	if (bpf_skb_set_tunnel_key(ctx, &key, sizeof(key), BPF_F_ZERO_CSUM_TX))
		return DROP_WRITE_ERROR;
	info->ifindex = tunnel_ifindex;
	trace_notify(ctx, TRACE_TO_OVERLAY, info);
	return bpf_redirect(tunnel_ifindex, 0);
}
