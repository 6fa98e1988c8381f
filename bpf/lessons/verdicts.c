// SPDX-License-Identifier: GPL-2.0
/*
 * One program per verdict and per mistake, for lessons about where a packet ends.
 *
 *   ip link set dev eth0 xdpdrv obj verdicts.o sec xdp/drop
 *   tc filter add dev eth0 ingress bpf da obj verdicts.o sec tc/drop
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* The plan gives a node's second pod this interface; its other end has no NAPI to redirect to. */
#define SECOND_POD 11

SEC("xdp/drop")
int xdp_drop(struct xdp_md *ctx __attribute__((unused)))
{
	return XDP_DROP;
}

/* What a program returns that has gone wrong: dropped like XDP_DROP, but the kernel says so. */
SEC("xdp/abort")
int xdp_abort(struct xdp_md *ctx __attribute__((unused)))
{
	return XDP_ABORTED;
}

/* Back out of the device it came from: on a veth only if the other end polls (has NAPI). */
SEC("xdp/back")
int xdp_back(struct xdp_md *ctx __attribute__((unused)))
{
	return XDP_TX;
}

SEC("xdp/aside")
int xdp_aside(struct xdp_md *ctx __attribute__((unused)))
{
	return bpf_redirect(SECOND_POD, 0);
}

/* The IPv4 header of a datagram without options and with payload; NULL for any other frame. */
static __always_inline struct iphdr *datagram(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	struct iphdr *ip4 = data + sizeof(*eth);

	if ((void *)(ip4 + 1) + sizeof(struct udphdr) + 1 > end)
		return NULL;
	if (eth->h_proto != bpf_htons(ETH_P_IP) || ip4->protocol != IPPROTO_UDP || ip4->ihl != 5)
		return NULL;
	return ip4;
}

/* Rewrites and forgets that a checksum stands over it: UDP's over the payload ... */
SEC("xdp/payload")
int xdp_payload(struct xdp_md *ctx)
{
	struct iphdr *ip4 = datagram(ctx);

	if (ip4)
		*((__u8 *)(ip4 + 1) + sizeof(struct udphdr)) ^= 0x20; /* ASCII: upper for lower case */
	return XDP_PASS;
}

/* ... and IP's over its header. */
SEC("xdp/header")
int xdp_header(struct xdp_md *ctx)
{
	struct iphdr *ip4 = datagram(ctx);

	if (ip4)
		ip4->ttl -= 1;
	return XDP_PASS;
}

SEC("tc/drop")
int tc_drop(struct __sk_buff *ctx __attribute__((unused)))
{
	return TC_ACT_SHOT;
}

char LICENSE[] SEC("license") = "GPL";
