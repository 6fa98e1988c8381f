/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The datapath's own mind: while armed, every program tells what it looked up, what it found and
 * what it decided, as fixed-size records in a ring buffer the tracer reads. Records of one packet
 * are joined by the address of its socket buffer, the same one the kernel's tracepoints show.
 *
 * Disarmed it costs a look at a word of the packet per note.
 */
#pragma once

#include "common.h"
#include "config.h"
#include "events.h"

enum mind_kind {
	MIND_ENTER = 1, /* what: enum mind_program */
	MIND_TAIL_CALL = 2, /* arg: slot of cilium_calls, or endpoint id (what: MIND_MAP_CALL_POLICY) */
	MIND_LOOKUP = 3, /* what: enum mind_map, key, found, value */
	MIND_CT = 4, /* arg: enum ct_status, key: tuple, what: direction */
	MIND_POLICY = 5, /* arg: 0, proxy port or DROP_*, key: policy key, value: policy entry */
	MIND_SERVICE = 6, /* arg: rev_nat_index, key: service key, value: service */
	MIND_BACKEND = 7, /* arg: backend id, value: backend */
	MIND_NAT = 8, /* key: tuple before, value: address and port after; what: direction */
	MIND_VERDICT = 9, /* arg: TC_ACT_* or DROP_* */
};

enum mind_program {
	MIND_PROGRAM_FROM_CONTAINER = 1,
	MIND_PROGRAM_HANDLE_ARP = 2,
	MIND_PROGRAM_HANDLE_IPV4 = 3,
	MIND_PROGRAM_CT_EGRESS = 4,
	MIND_PROGRAM_HANDLE_IPV4_CONT = 5,
	MIND_PROGRAM_HANDLE_POLICY = 6,
	MIND_PROGRAM_CT_INGRESS_POLICY = 7,
	MIND_PROGRAM_IPV4_POLICY = 8,
	MIND_PROGRAM_TO_CONTAINER = 9,
	MIND_PROGRAM_CT_INGRESS = 10,
	MIND_PROGRAM_IPV4_TO_ENDPOINT = 11,
	MIND_PROGRAM_FROM_HOST = 12,
	MIND_PROGRAM_IPV4_FROM_HOST = 13,
	MIND_PROGRAM_TO_HOST = 14,
	MIND_PROGRAM_FROM_NETDEV = 15,
	MIND_PROGRAM_IPV4_FROM_NETDEV = 16,
	MIND_PROGRAM_TO_NETDEV = 17,
	MIND_PROGRAM_FROM_OVERLAY = 18,
	MIND_PROGRAM_IPV4_FROM_OVERLAY = 19,
	MIND_PROGRAM_TO_OVERLAY = 20,
	MIND_PROGRAM_NODEPORT_NAT_EGRESS = 21,
	MIND_PROGRAM_NODEPORT_REVNAT = 22,
	MIND_PROGRAM_NODEPORT_NAT_INGRESS = 23,
	MIND_PROGRAM_NODEPORT_NAT_FWD = 24,
	MIND_PROGRAM_NODEPORT_DSR = 25,
	MIND_PROGRAM_SNAT_FWD = 26,
};

enum mind_map {
	MIND_MAP_IPCACHE = 1,
	MIND_MAP_LXC = 2,
	MIND_MAP_TUNNEL = 3,
	MIND_MAP_CALL_POLICY = 4,
	MIND_MAP_FRAG = 5,
	MIND_MAP_SNAT = 6,
	MIND_MAP_AFFINITY = 7,
	MIND_MAP_SOURCE_RANGE = 8,
	MIND_MAP_MAGLEV = 9,
	MIND_MAP_NEIGH = 10,
	MIND_MAP_REVERSE_NAT = 11,
	MIND_MAP_IPMASQ = 12,
	MIND_MAP_FIB = 13, /* the routing table; arg: BPF_FIB_LKUP_RET_* */
};

const volatile enum mind_kind btf_mind_kind = MIND_ENTER;
const volatile enum mind_program btf_mind_program = MIND_PROGRAM_FROM_CONTAINER;
const volatile enum mind_map btf_mind_map = MIND_MAP_IPCACHE;

#define MIND_BYTES 24u

/* What a program has to say. Longer keys and values are cut. */
struct mind_note {
	__s32 arg;
	__u8 kind; /* enum mind_kind */
	__u8 what; /* see enum mind_kind */
	__u8 found; /* 1: the look-up hit */
	__u8 file; /* enum source_file */
	__u8 key[MIND_BYTES];
	__u8 value[MIND_BYTES];
};

struct mind_record {
	__u64 ns; /* bpf_ktime_get_ns() */
	__u64 skb; /* kernel address of the socket buffer */
	__u32 hash; /* skb flow hash */
	__u32 ifindex; /* device of the hook */
	__u32 mark;
	__u16 endpoint; /* endpoint id of the program's object */
	__u16 pad;
	struct mind_note note;
};

_Static_assert(sizeof(struct mind_note) == 56, "note of mind_record");
_Static_assert(sizeof(struct mind_record) == 88, "cilium_mind record");

/* Written by the datapath while armed, read by the tracer. Capacity: about 2900 records. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024);
} cilium_mind SEC(".maps");

const volatile struct mind_record *btf_mind_record;

/* Whether this packet is one to tell of: decided once, where it enters, because to look into it for
 * every note costs more than all other work; and a word of the packet's own takes fewer bytes of
 * code to ask than a map does, which counts where every packet goes by. */
static __always_inline bool mind_armed(const struct __sk_buff *ctx)
{
	return unlikely(cb_get(ctx, CB_MIND));
}

#define MIND_TUNNEL_BYTES 50 /* outer IPv4, UDP and VXLAN, inner Ethernet */
#define MIND_TUNNEL_PORT 8472 /* VXLAN_PORT of encap.h, which is built on this file */
#define MIND_BY_TAIL (1ULL << 32)
#define MIND_PORT_SHIFT 48

#define MIND_ENDS_OFF 12 /* of the addresses in an IPv4 header */
#define MIND_NO_OPTIONS 0x45 /* first byte of a header without options */

/* What names the ends of a packet: addresses, then ports behind the header. */
struct mind_ends {
	__be32 addrs[2];
	__be16 ports[2];
};

/* Where they lie in the linear part, as nearly always, no call is needed; ports behind options are
 * read by one, since only the first packet of a flow to a remote NodePort (DSR) has any. */
static __always_inline bool mind_read_ends(struct __sk_buff *ctx, __u32 at, struct mind_ends *ends)
{
	const void *header = ctx_data(ctx) + at;
	const word32 *linear = header + MIND_ENDS_OFF;
	__u8 start = MIND_NO_OPTIONS;
	word32 *words = (void *)ends;

	if (unlikely((const void *)linear + sizeof(*ends) > ctx_data_end(ctx))) {
		if (bpf_skb_load_bytes(ctx, at + MIND_ENDS_OFF, ends, sizeof(*ends)) ||
		    bpf_skb_load_bytes(ctx, at, &start, sizeof(start)))
			return false;
	} else {
		start = *(const __u8 *)header;
		words[0] = linear[0];
		words[1] = linear[1];
		words[2] = linear[2];
	}
	return likely(start == MIND_NO_OPTIONS) ||
	       !bpf_skb_load_bytes(ctx, at + (start & 0xf) * 4, ends->ports, sizeof(ends->ports));
}

/* @tunnel: set if the packet is for the tunnel's port: else nothing is inside it. */
static __always_inline bool mind_has_end(struct __sk_buff *ctx, __u32 at, __u64 wanted,
					 bool *tunnel)
{
	__be16 port = wanted >> MIND_PORT_SHIFT;
	struct mind_ends ends = {};
	__be32 addr = wanted;

	if (!mind_read_ends(ctx, at, &ends))
		return false;
	*tunnel = ends.ports[1] == bpf_htons(MIND_TUNNEL_PORT);
	return ((!addr || ends.addrs[0] == addr) && (!port || ends.ports[0] == port)) ||
	       ((!addr || ends.addrs[1] == addr) && (!port || ends.ports[1] == port));
}

/*
 * RUNTIME_CONFIG_MIND is 1 for every packet. Else its low 32 bits are an IPv4 address and its
 * highest 16 a port (0 any, of either) that one end must have, inside a tunnel, too (both in
 * network byte order). With MIND_BY_TAIL the low bits are instead the last four bytes of the
 * packet: there the lab puts a cookie, and no tunnel or translation moves it.
 */
VERIFIED_ONCE int mind_chosen(struct __sk_buff *ctx, __u64 wanted)
{
	bool tunnel = false;
	__u32 tail = 0;

	if (wanted & MIND_BY_TAIL)
		return !bpf_skb_load_bytes(ctx, ctx->len - sizeof(tail), &tail, sizeof(tail)) &&
		       tail == (__u32)wanted;
	return mind_has_end(ctx, ETH_HLEN, wanted, &tunnel) ||
	       (tunnel && mind_has_end(ctx, ETH_HLEN + MIND_TUNNEL_BYTES, wanted, &tunnel));
}

static __always_inline bool mind_wants(struct __sk_buff *ctx)
{
	__u64 wanted = runtime_config_get(RUNTIME_CONFIG_MIND);

	return likely(wanted <= 1) ? wanted : mind_chosen(ctx, wanted);
}

VERIFIED_ONCE int mind_write(struct __sk_buff *ctx, const struct mind_note *note)
{
	struct mind_record *record;

	if (!note || !mind_wants(ctx))
		return 0;
	record = bpf_ringbuf_reserve(&cilium_mind, sizeof(*record), 0);
	if (!record) {
		runtime_count(RUNTIME_CONFIG_MIND_LOST);
		return 0;
	}
	record->ns = bpf_ktime_get_ns();
	/* The context of a tc program is the socket buffer itself; a privileged program may say
	 * where it is. No kfunc: those make the loader parse all of the kernel's BTF. */
	record->skb = (unsigned long)ctx;
	record->hash = ctx->hash;
	record->ifindex = ctx->ifindex;
	record->mark = ctx->mark;
	record->endpoint = endpoint_id;
	record->pad = 0;
	record->note = *note;
	bpf_ringbuf_submit(record, 0);
	return 0;
}

#define MIND_NOTE(kind_, what_, arg_) \
	{ .kind = (kind_), .what = (what_), .arg = (arg_), .file = THIS_FILE }

/* Every program asks several times whether it should; what follows a yes lies elsewhere. */
VERIFIED_ONCE int mind_tell(struct __sk_buff *ctx, __u8 kind, __u8 what, __s32 arg)
{
	struct mind_note note = MIND_NOTE(kind, what, arg);

	return mind_write(ctx, &note);
}

static __always_inline void mind_say(struct __sk_buff *ctx, enum mind_kind kind, __u8 what,
				     __s32 arg)
{
	if (mind_armed(ctx))
		mind_tell(ctx, kind, what, arg);
}

/* Programs that the kernel or another object calls: a packet may be new to this object here. */
#define MIND_ENTRIES                                                                       \
	(1U << MIND_PROGRAM_FROM_CONTAINER | 1U << MIND_PROGRAM_HANDLE_POLICY |            \
	 1U << MIND_PROGRAM_TO_CONTAINER | 1U << MIND_PROGRAM_FROM_HOST |                  \
	 1U << MIND_PROGRAM_TO_HOST | 1U << MIND_PROGRAM_FROM_NETDEV |                     \
	 1U << MIND_PROGRAM_TO_NETDEV | 1U << MIND_PROGRAM_FROM_OVERLAY |                  \
	 1U << MIND_PROGRAM_TO_OVERLAY)

static __always_inline void mind_enter(struct __sk_buff *ctx, enum mind_program program)
{
	if (1U << program & MIND_ENTRIES)
		cb_set(ctx, CB_MIND, enable_mind && mind_wants(ctx));
	mind_say(ctx, MIND_ENTER, program, 0);
}

/* A key and what was found for it; sizes are constants, `value` is NULL for a miss. */
static __always_inline void
mind_fill(struct mind_note *note, const void *key, __u32 key_size, const void *value,
	  __u32 value_size)
{
	__builtin_memcpy(note->key, key, key_size < MIND_BYTES ? key_size : MIND_BYTES);
	if (value)
		__builtin_memcpy(note->value, value,
				 value_size < MIND_BYTES ? value_size : MIND_BYTES);
	note->found = !!value;
}
