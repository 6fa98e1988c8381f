/* SPDX-License-Identifier: GPL-2.0 */
/* The one record that every probe writes, whatever it sits on. */
#ifndef LAB_PROBES_RECORD_H
#define LAB_PROBES_RECORD_H

#include "kernel.h"

#define RECORD_PACKET_BYTES 192
#define LIGHT_PACKET_BYTES 112	/* without stacks: every header up to TCP's inside a tunnel */
#define RECORD_STACK_FRAMES 32

/* What a record is about. lab/observe/records.py names the same numbers; a test compares both. */
enum record_kind {
	KIND_NAPI_POLL = 1,
	KIND_GRO_RECEIVE = 2,
	KIND_GRO_RESULT = 3,
	KIND_NETIF_RX = 4,
	KIND_RECEIVE_SKB = 5,
	KIND_DEV_QUEUE = 6,
	KIND_DEV_XMIT = 7,
	KIND_FREE = 8,
	KIND_CONSUME = 9,
	KIND_ROUTE = 10,
	KIND_DATA_READY = 11,
	KIND_QUEUE_FULL = 12,
	KIND_ICMP_SEND = 13,
	KIND_XDP_EXCEPTION = 14,
	KIND_XDP_REDIRECT = 15,
	KIND_NETFILTER_FIRST = 16,
	KIND_NETFILTER_LAST = 17,
	KIND_TC_INGRESS = 18,
	KIND_TC_EGRESS = 19,
	KIND_CGROUP_INGRESS = 20,
	KIND_CGROUP_EGRESS = 21,
	KIND_TCP_RESET = 22,
	KIND_FUNCTION = 23,
	KIND_QDISC_ENQUEUE = 24,
	KIND_NEIGHBOUR = 25,
	KIND_SOCKET_READ = 30,
	KIND_SOCKET_LOOKUP = 31,
	KIND_TCP_SEGMENT = 32,
	KIND_TCP_STATE = 33,
	KIND_XDP_TX = 34,
	KIND_XDP_TRANSMIT = 35,
	KIND_FUNCTION_RETURN = 40,
	KIND_XFRM_OUTPUT = 50,
	KIND_XFRM_ENCRYPT = 51,
	KIND_XFRM_INPUT = 52,
	KIND_XFRM_DECRYPT = 53,
	KIND_XFRM_DELIVER = 54,
	KIND_XFRM_CHECK = 55,
	KIND_XFRM_FAULT = 56,
	KIND_XFRM_DISCARD = 57,
};

/* How the device and its namespace were set up when the packet came by: the reasons for steps
 * that are not taken. Valid only with CONFIG_KNOWN.
 */
enum record_config {
	CONFIG_KNOWN = 1 << 0,
	CONFIG_XDP_DRIVER = 1 << 1,
	CONFIG_XDP_GENERIC = 1 << 2,
	CONFIG_TAPS = 1 << 3,
	CONFIG_TC_INGRESS = 1 << 4,
	CONFIG_NF_INGRESS = 1 << 5,
	CONFIG_NF_PREROUTING = 1 << 6,
	CONFIG_NF_INPUT = 1 << 7,
	CONFIG_XFRM_POLICY_IN = 1 << 8,
	CONFIG_RX_HANDLER = 1 << 9,
	CONFIG_REDIRECTED = 1 << 10, /* of the packet: generic XDP does not look at it again */
};

/* What the packet bytes begin with. */
enum record_link {
	LINK_NONE = 0,
	LINK_ETHERNET = 1,
	LINK_IP = 2,
};

struct record {
	u64 sequence;	/* complete if this is one more than the number it was begun with */
	u64 ns;		/* CLOCK_MONOTONIC */
	u64 skb;	/* address of the buffer, 0 if there is none */
	u64 head;	/* address of its storage: survives XDP and clones */
	u64 cookie;	/* at the end of the payload; 0 if there is none or it is not readable */
	u64 location;	/* a kernel function: where freed, which poll, which routing input */
	u64 arg;	/* by kind: work done, netfilter hook, socket family and port ... */
	u32 netns;	/* inode number of the network namespace */
	u32 ifindex;	/* of the device concerned, in that namespace; 0 if none */
	u32 len;	/* whole length of the packet, bytes, from the first of packet[] on */
	u32 mark;
	u32 hash;
	u32 reason;	/* kernel drop reason (numbers differ between kernels) */
	__s32 verdict;	/* return value, by kind */
	u32 cpu;
	u32 config;	/* enum record_config */
	u16 kind;	/* enum record_kind */
	u16 captured;	/* bytes valid in packet[] */
	u16 stack_bytes; /* bytes valid in stack[] */
	u16 link;	/* enum record_link */
	u32 state;	/* netfilter: conntrack's word, type of the route; look-up: device it came by */
	u8 packet[RECORD_PACKET_BYTES];
	u64 stack[RECORD_STACK_FRAMES];
};

_Static_assert(sizeof(struct record) == 104 + RECORD_PACKET_BYTES + 8 * RECORD_STACK_FRAMES,
	       "lab/observe/records.py unpacks these bytes");

#define LIGHT_BYTES (__builtin_offsetof(struct record, packet) + LIGHT_PACKET_BYTES)

#define MMAPABLE (1 << 10)	/* BPF_F_MMAPABLE, an enumerator the preprocessor cannot see */
#define CACHE_LINE_WORDS 8

/* Where a processor is among its own records; the reader writes only to @taken. Both numbers begin
 * with the first lap, so that an untouched record's zero is no number.
 */
struct lane {
	u64 begun;
	u64 lost;	/* records that found no room: a trace with losses says so */
	u64 writer[CACHE_LINE_WORDS - 2];
	u64 taken;
	u64 reader[CACHE_LINE_WORDS - 1];
};

/* The collector creates both maps before loading: one lane for each processor there may be, and for
 * each lane this many records of the length that a trace with or without stacks needs. A ring
 * buffer of the kernel would cost a lock, two calls and a bus-locked store for each record.
 */
const volatile u32 lane_records = 1024;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, MMAPABLE);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct lane);
} trace_lanes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, MMAPABLE);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct record);
} trace_records SEC(".maps");

/* Set before loading: a stack costs microseconds, so a measurement may leave it out. */
const volatile u8 take_stacks = 1;

/* The tracepoint consume_skb tells where: its second argument, missing in older kernels. */
const volatile u8 consume_has_location = 1;

static __always_inline struct lane *this_lane(u32 cpu)
{
	return bpf_map_lookup_elem(&trace_lanes, &cpu);
}

/* No store here is bus-locked: it would wait for all of the record before to reach the cache, which
 * takes longer than everything else. An interrupt that takes the number in between is noticed.
 */
static __always_inline struct record *record_begin(u16 kind)
{
	u32 cpu = bpf_get_smp_processor_id(), place;
	struct lane *lane = this_lane(cpu);
	struct record *record;
	u64 number;

	if (!lane)
		return NULL;
	number = lane->begun;
	if (number - lane->taken >= lane_records) {
		lane->lost += 1;
		return NULL;
	}
	*(volatile u64 *)&lane->begun = number + 1;
	place = cpu * lane_records + (number & (lane_records - 1));
	record = bpf_map_lookup_elem(&trace_records, &place);
	if (!record)
		return NULL;
	if (record->sequence - number <= 1) {
		lane->lost += 1;
		return NULL;
	}
	*(volatile u64 *)&record->sequence = number;
	__builtin_memset(&record->ns, 0, __builtin_offsetof(struct record, packet) - sizeof(u64));
	record->ns = bpf_ktime_get_ns();
	record->cpu = cpu;
	record->kind = kind;
	return record;
}

static __always_inline void record_stack(void *ctx, struct record *record)
{
	long got;

	if (!take_stacks)
		return;
	got = bpf_get_stack(ctx, record->stack, sizeof(record->stack), 0);
	if (got > 0)
		record->stack_bytes = got;
}

/* The collector comes by itself: to wake it for each record would cost more than the record. */
static __always_inline void record_end(struct record *record)
{
	/* x86 lets others see stores in their order; the compiler must not move this one forward */
	barrier();
	*(volatile u64 *)&record->sequence += 1;
}

#endif
