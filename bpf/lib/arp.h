/* SPDX-License-Identifier: GPL-2.0 */
/* ARP for IPv4 over Ethernet: reading a request, turning it into its answer. */
#pragma once

#include "common.h"
#include "drop_reasons.h"
#include "eth.h"

#define ARP_HTYPE_ETHERNET 1
#define ARP_REQUEST 1
#define ARP_REPLY 2

/* RFC 826 with the sizes of Ethernet and IPv4 filled in. */
struct arp_ipv4 {
	__be16 htype;
	__be16 ptype;
	__u8 hlen;
	__u8 plen;
	__be16 op;
	__u8 sha[ETH_ALEN];
	__be32 spa;
	__u8 tha[ETH_ALEN];
	__be32 tpa;
} __attribute__((packed));

_Static_assert(sizeof(struct arp_ipv4) == 28, "ARP packet");

/* 0 and the packet in `arp`, or DROP_INVALID: cut short, or not about IPv4 over Ethernet. */
static __always_inline int arp_read(struct __sk_buff *ctx, struct arp_ipv4 *arp)
{
	if (bpf_skb_load_bytes(ctx, ETH_HLEN, arp, sizeof(*arp)))
		return DROP_INVALID;
	if (arp->htype != bpf_htons(ARP_HTYPE_ETHERNET) || arp->ptype != bpf_htons(ETH_P_IP) ||
	    arp->hlen != ETH_ALEN || arp->plen != sizeof(__be32))
		return DROP_INVALID;
	return 0;
}

/* Makes the frame the answer "the requested address is at `mac`"; 0 or DROP_WRITE_ERROR. */
static __always_inline int arp_write_reply(struct __sk_buff *ctx, struct arp_ipv4 *arp,
					   const volatile __u8 *mac)
{
	__be32 asked = arp->tpa;

	arp->op = bpf_htons(ARP_REPLY);
	mac_copy(arp->tha, arp->sha);
	mac_copy(arp->sha, mac);
	arp->tpa = arp->spa;
	arp->spa = asked;
	if (bpf_skb_store_bytes(ctx, ETH_HLEN, arp, sizeof(*arp), 0))
		return DROP_WRITE_ERROR;
	return eth_set_addrs(ctx, mac, arp->tha);
}
