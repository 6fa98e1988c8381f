/* SPDX-License-Identifier: GPL-2.0 */
/* Ethernet: addresses and what follows the header. */
#pragma once

#include "common.h"
#include "drop_reasons.h"

/* A MAC as the maps hold it: 8 bytes, 2 of padding. */
struct mac {
	__u8 addr[ETH_ALEN];
	__u8 pad[2];
};

_Static_assert(sizeof(struct mac) == 8, "MAC in map values");

static __always_inline void mac_copy(__u8 *to, const volatile __u8 *from)
{
	for (int i = 0; i < ETH_ALEN; i++)
		to[i] = from[i];
}

/* Into the packet, where the kernel lets us move more than a byte at a time. */
static __always_inline void mac_put(__u8 *to, const volatile __u8 *from)
{
	for (int i = 0; i < ETH_ALEN; i += 2)
		*(__u16 *)(to + i) = *(const volatile __u16 *)(from + i);
}

/* Both addresses of the frame; 0 or DROP_WRITE_ERROR. Written where they are: a helper's copy of
 * twelve bytes costs more than the twelve stores. */
static __always_inline int eth_set_addrs(struct __sk_buff *ctx, const volatile __u8 *smac,
					 const volatile __u8 *dmac)
{
	struct ethhdr *eth = ctx_data(ctx);

	if ((void *)(eth + 1) > ctx_data_end(ctx))
		return DROP_WRITE_ERROR;
	mac_put(eth->h_dest, dmac);
	mac_put(eth->h_source, smac);
	return 0;
}

/* A VLAN tag still in the frame or already taken out of it by the kernel. */
static __always_inline bool eth_has_vlan(struct __sk_buff *ctx)
{
	return ctx->vlan_present || ctx->protocol == bpf_htons(ETH_P_8021Q) ||
	       ctx->protocol == bpf_htons(ETH_P_8021AD);
}
