/* SPDX-License-Identifier: GPL-2.0 */
/* The IPv4 header: finding it, trusting it, passing it one hop on. */
#pragma once

#include "common.h"
#include "drop_reasons.h"
#include "eth.h"

#define IPV4_OFF ETH_HLEN
#define IPV4_MIN_HLEN ((int)sizeof(struct iphdr))
#define IPV4_MF bpf_htons(0x2000)
#define IPV4_FRAG_OFFSET bpf_htons(0x1fff)

/*
 * A pointer to the header, or NULL when the packet ends before it. Every helper that may move the
 * packet invalidates it (the verifier insists), so it is asked for again after each.
 */
static __always_inline struct iphdr *ipv4_header(struct __sk_buff *ctx)
{
	void *data = ctx_data(ctx);
	void *end = ctx_data_end(ctx);

	if (unlikely(data + IPV4_OFF + IPV4_MIN_HLEN > end)) {
		/* The bytes may be there, outside the linear part. */
		if (bpf_skb_pull_data(ctx, IPV4_OFF + IPV4_MIN_HLEN))
			return NULL;
		data = ctx_data(ctx);
		end = ctx_data_end(ctx);
		if (data + IPV4_OFF + IPV4_MIN_HLEN > end)
			return NULL;
	}
	return data + IPV4_OFF;
}

static __always_inline int ipv4_hlen(const struct iphdr *ip4)
{
	return ip4->ihl * 4;
}

/* Lengths that fit into each other and into the frame. The kernel checks the checksum. */
static __always_inline bool ipv4_is_sane(const struct __sk_buff *ctx, const struct iphdr *ip4)
{
	int hlen = ipv4_hlen(ip4);
	__u32 total = bpf_ntohs(ip4->tot_len);

	return ip4->version == 4 && hlen >= IPV4_MIN_HLEN && total >= (__u32)hlen &&
	       IPV4_OFF + total <= ctx->len;
}

static __always_inline bool ipv4_is_fragment(const struct iphdr *ip4)
{
	return ip4->frag_off & (IPV4_MF | IPV4_FRAG_OFFSET);
}

static __always_inline bool ipv4_is_multicast(__be32 addr)
{
	return (addr & bpf_htonl(0xf0000000)) == bpf_htonl(0xe0000000);
}

/* TTL - 1; 0 or a DROP_*. The checksum of one changed 16-bit word is updated as RFC 1624 does it,
 * without a helper call. */
static __always_inline int ipv4_dec_ttl(struct __sk_buff *ctx)
{
	struct iphdr *ip4 = ipv4_header(ctx);
	__u32 sum;

	if (!ip4)
		return DROP_INVALID;
	if (ip4->ttl <= 1)
		return DROP_TTL_EXCEEDED;
	ip4->ttl--;
	sum = ip4->check + bpf_htons(0x0100);
	ip4->check = sum + (sum >= 0xffff);
	return 0;
}

/* One router hop: TTL - 1, both MACs. 0 or a DROP_*. */
static __always_inline int ipv4_hop(struct __sk_buff *ctx, const volatile __u8 *smac,
				    const volatile __u8 *dmac)
{
	int ret = ipv4_dec_ttl(ctx);

	return ret < 0 ? ret : eth_set_addrs(ctx, smac, dmac);
}
