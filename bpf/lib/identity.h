/* SPDX-License-Identifier: GPL-2.0 */
/* Security identities: who a packet is from, as a number the policy matches. */
#pragma once

#include "common.h"

enum identity {
	IDENTITY_UNKNOWN = 0,
	IDENTITY_HOST = 1,
	IDENTITY_WORLD = 2,
	IDENTITY_UNMANAGED = 3,
	IDENTITY_HEALTH = 4,
	IDENTITY_INIT = 5,
	IDENTITY_REMOTE_NODE = 6,
	IDENTITY_KUBE_APISERVER = 7,
	IDENTITY_INGRESS = 8,
	IDENTITY_CIDR_FIRST = 1 << 24, /* node-local numbers for CIDRs start here */
};

const volatile enum identity btf_identity = IDENTITY_UNKNOWN;

/* The mark that says `magic` and carries `identity` through the stack. */
static __always_inline __u32 identity_mark(__u32 identity, enum mark_magic magic)
{
	return magic | identity << 16 | (identity >> 16 & 0xff);
}

static __always_inline __u32 identity_of_mark(__u32 mark)
{
	return (mark & 0xff) << 16 | mark >> 16;
}

/* The world, or a CIDR cut out of it: not one of our pods or nodes. */
static __always_inline bool identity_is_outside(__u32 identity)
{
	return identity == IDENTITY_WORLD || identity >= IDENTITY_CIDR_FIRST;
}

/*
 * Who sent what leaves the node through cilium_host. The mark says it for packets of a proxy, of
 * the host (netfilter OUTPUT marks them) and of pods routed by the stack; an unmarked packet that
 * never arrived on any interface was born on the node.
 */
static __always_inline __u32 identity_from_host(const struct __sk_buff *ctx)
{
	__u32 magic = ctx->mark & MARK_MAGIC_MASK;

	if (magic == MARK_MAGIC_IDENTITY)
		return identity_of_mark(ctx->mark);
	if (magic == MARK_MAGIC_HOST || !ctx->ingress_ifindex)
		return IDENTITY_HOST;
	return IDENTITY_WORLD;
}
