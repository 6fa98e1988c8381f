// SPDX-License-Identifier: GPL-2.0
/*
 * One program per verdict, for lessons about where a packet ends.
 *
 *   ip link set dev eth0 xdpdrv obj verdicts.o sec xdp/drop
 *   tc filter add dev eth0 ingress bpf da obj verdicts.o sec tc/drop
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
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

SEC("tc/drop")
int tc_drop(struct __sk_buff *ctx __attribute__((unused)))
{
	return TC_ACT_SHOT;
}

char LICENSE[] SEC("license") = "GPL";
