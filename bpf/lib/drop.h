/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Drop notifications. An entry that got a negative DROP_* calls drop_notify(): the drop is counted
 * here, and told by tail call CALL_DROP_NOTIFY, whose argument is skb->cb[]:
 *
 *   cb[0] identity of the sender       cb[1] identity of the receiver (0 unknown)
 *   cb[2] 31....24 23....16 15.....0   cb[3] endpoint id of the receiver (0 on egress)
 *         ext_err  reason   line       cb[4] file
 */
#pragma once

#include "events.h"
#include "metrics.h"
#include "tailcall.h"

#define DROP_NOTIFY_VERSION 1

/* Version 1 record, 36 bytes, then the packet. */
struct drop_record {
	struct event_header common;
	__u32 src_label;
	__u32 dst_label;
	__u32 dst_id; /* receiver; 0: the packet was on its way out */
	__u16 line; /* source line of the entry that gave up */
	__u8 file; /* enum source_file */
	__s8 ext_err; /* slot of a missed tail call, errno of a helper */
	__u32 ifindex;
} __attribute__((packed));

_Static_assert(sizeof(struct drop_record) == 36, "DROP record");

/* Who sent what to whom, as far as the program got. What the object is configured with is not read
 * before somebody is told: nearly always nobody is. */
struct drop_info {
	__u32 src_label;
	__u32 dst_label;
	__u16 dst_id;
	__u8 dir; /* enum metric_dir */
	__s8 ext_err;
	bool from_self; /* the sender is this endpoint, whatever src_label says */
	bool to_self; /* the receiver is */
};

/* Counts the drop, tells it, and is the verdict. Without a slot 1 it is still counted. */
static __always_inline int __drop_notify(struct __sk_buff *ctx, int reason,
					 const struct drop_info *info, __u8 file, __u16 line)
{
	metrics_count(ctx->len, (__u8)-reason, info->dir);
	mind_say(ctx, MIND_VERDICT, 0, reason);
	cb_set(ctx, 0, info->from_self ? security_identity : info->src_label);
	cb_set(ctx, 1, info->to_self ? security_identity : info->dst_label);
	cb_set(ctx, 2, (__u32)(__u8)info->ext_err << 24 | (__u32)(__u8)-reason << 16 | line);
	cb_set(ctx, 3, info->to_self ? endpoint_id : info->dst_id);
	cb_set(ctx, 4, file);
	bpf_tail_call_static(ctx, &cilium_calls, CALL_DROP_NOTIFY);
	return TC_ACT_SHOT;
}

/* A macro for __LINE__ alone: the line named is the entry's. THIS_FILE is set by the entry file. */
#define drop_notify(ctx, reason, info) __drop_notify(ctx, reason, info, THIS_FILE, __LINE__)

TAIL_CALL("cilium_calls/1") int tail_drop_notify(struct __sk_buff *ctx)
{
	struct drop_record record = {
		.common = event_header(ctx, EVENT_DROP, cb_get(ctx, 2) >> 16, DROP_NOTIFY_VERSION),
		.src_label = cb_get(ctx, 0),
		.dst_label = cb_get(ctx, 1),
		.dst_id = cb_get(ctx, 3),
		.line = cb_get(ctx, 2),
		.file = cb_get(ctx, 4),
		.ext_err = cb_get(ctx, 2) >> 24,
		.ifindex = ctx->ifindex,
	};

	event_emit(ctx, &record, sizeof(record), record.common.cap_len);
	return TC_ACT_SHOT;
}
