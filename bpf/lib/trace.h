/* SPDX-License-Identifier: GPL-2.0 */
/* Trace notifications: a packet passed an observation point. */
#pragma once

#include "events.h"
#include "metrics.h"

/* Numbers and names of Cilium's observation points. */
enum trace_point {
	TRACE_TO_LXC = 0,
	TRACE_TO_PROXY = 1,
	TRACE_TO_HOST = 2,
	TRACE_TO_STACK = 3,
	TRACE_TO_OVERLAY = 4,
	TRACE_FROM_LXC = 5,
	TRACE_FROM_PROXY = 6,
	TRACE_FROM_HOST = 7,
	TRACE_FROM_STACK = 8,
	TRACE_FROM_OVERLAY = 9,
	TRACE_FROM_NETWORK = 10,
	TRACE_TO_NETWORK = 11,
	TRACE_FROM_CRYPTO = 12,
	TRACE_TO_CRYPTO = 13,
};

/* Why the packet was let through: what conntrack said. */
enum trace_reason {
	TRACE_REASON_NEW = 0,
	TRACE_REASON_ESTABLISHED = 1,
	TRACE_REASON_REPLY = 2,
	TRACE_REASON_RELATED = 3,
	TRACE_REASON_REOPENED = 4,
	TRACE_REASON_UNKNOWN = 5,
	TRACE_REASON_ENCRYPTED = 0x80,
};

/* How much is told: everything; nothing on arrival; and only news of a flow (conntrack decides). */
enum monitor_aggregation {
	AGGREGATE_NONE = 0,
	AGGREGATE_RX = 1,
	AGGREGATE_FLOW = 3,
};

const volatile enum trace_point btf_trace_point = TRACE_TO_LXC;
const volatile enum trace_reason btf_trace_reason = TRACE_REASON_NEW;
const volatile enum monitor_aggregation btf_monitor_aggregation = AGGREGATE_NONE;

#define TRACE_NOTIFY_VERSION 1

/* Version 1 record, 48 bytes, then the packet. */
struct trace_notify {
	struct event_header common;
	__u32 src_label;
	__u32 dst_label;
	__u16 dst_id; /* endpoint id of the receiver, 0 unknown */
	__u8 reason; /* enum trace_reason, 0x80 encrypted */
	__u8 flags; /* 1: IPv6 */
	__u32 ifindex; /* where it goes, 0 unknown */
	__be32 orig_ip4; /* source before reverse NAT, 0 none */
	__u32 orig_ip_rest[3]; /* remainder of an IPv6 address */
};

_Static_assert(sizeof(struct trace_notify) == 48, "TRACE record");

/* What a program knows about the packet when it tells of it; see struct drop_info. */
struct trace_info {
	__u32 src_label;
	__u32 dst_label;
	__u32 ifindex;
	__be32 orig_ip4;
	__u16 dst_id;
	__u8 reason;
	bool quiet; /* conntrack saw nothing new: told only without aggregation */
	bool from_self; /* the sender is this endpoint, whatever src_label says */
	bool to_self; /* the receiver is, by the interface we sit on */
	bool to_wire; /* nobody's yet, on the interface we sit on */
};

static __always_inline __u32 trace_sender(const struct trace_info *info)
{
	return info->from_self ? security_identity : info->src_label;
}

static __always_inline bool trace_point_is_arrival(enum trace_point point)
{
	return point >= TRACE_FROM_LXC && point != TRACE_TO_NETWORK && point != TRACE_TO_CRYPTO;
}

/* Every point but FROM_LXC counts the packet; a pod's packet is counted where it is delivered. */
static __always_inline void trace_count(struct __sk_buff *ctx, enum trace_point point)
{
	if (point == TRACE_TO_LXC)
		metrics_count(ctx->len, REASON_FORWARDED, METRIC_INGRESS);
	else if (point == TRACE_FROM_LXC)
		return;
	else if (trace_point_is_arrival(point))
		metrics_count(ctx->len, REASON_PLAINTEXT, METRIC_INGRESS);
	else
		metrics_count(ctx->len, REASON_FORWARDED, METRIC_EGRESS);
}

/* Would a packet of this flow be told of where it leaves? */
static __always_inline bool trace_wanted(const struct trace_info *info)
{
	return !info->quiet || runtime_config_get(RUNTIME_CONFIG_AGGREGATION) < AGGREGATE_FLOW;
}

/* `point` is a constant at every call, so the counting and filtering above folds away. */
static __always_inline void
trace_notify(struct __sk_buff *ctx, enum trace_point point, const struct trace_info *info)
{
	__u64 aggregation = runtime_config_get(RUNTIME_CONFIG_AGGREGATION);
	struct trace_notify record;

	trace_count(ctx, point);
	if (likely(aggregation >= AGGREGATE_RX) && trace_point_is_arrival(point))
		return;
	if (likely(aggregation >= AGGREGATE_FLOW && info->quiet))
		return;

	record = (struct trace_notify){
		.common = event_header(ctx, EVENT_TRACE, point, TRACE_NOTIFY_VERSION),
		.src_label = trace_sender(info),
		.dst_label = info->to_self ? security_identity : info->dst_label,
		.dst_id = info->to_self ? endpoint_id : info->dst_id,
		.reason = info->reason,
		.ifindex = info->to_self || info->to_wire ? interface_ifindex : info->ifindex,
		.orig_ip4 = info->orig_ip4,
	};
	event_emit(ctx, &record, sizeof(record), record.common.cap_len);
}
