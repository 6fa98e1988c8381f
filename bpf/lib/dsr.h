/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Direct server return: the client's packet goes on to a remote backend as it is, with the service
 * address in an IPv4 option; the backend's node notes it, and its answers leave with that source.
 *
 *   9a 08 PP PP AA AA AA AA   option 154, 8 bytes, port and address, both byte-swapped as Cilium
 *                             puts them on the wire
 */
#pragma once

#include "common.h"
#include "config.h"
#include "drop_reasons.h"
#include "flow.h"
#include "icmp4.h"
#include "ipv4.h"
#include "metrics.h"
#include "mind.h"
#include "nat.h"
#include "rewrite.h"

#define DSR_OPTION 0x9a08

struct dsr_option {
	__be16 kind; /* 0x9a08: type and length */
	__u16 port; /* swapped */
	__u32 addr; /* swapped */
};

_Static_assert(sizeof(struct dsr_option) == 8, "DSR option");

/* Checksum of an IPv4 header that grew by the option, from its old sum: RFC 1071 arithmetic. */
static __always_inline __sum16 dsr_checksum(const struct iphdr *old, const struct iphdr *new,
					    const struct dsr_option *option)
{
	__s64 sum = bpf_csum_diff((__be32 *)old, sizeof(__be32), (__be32 *)new, sizeof(__be32),
				  ~old->check & 0xffff);

	return csum_fold(bpf_csum_diff(NULL, 0, (__be32 *)option, sizeof(*option), sum));
}

/* Puts the option right behind the fixed header. 0 or a DROP_*: no room for it in the header, or
 * in the packet. */
static __always_inline int dsr_add_option(struct __sk_buff *ctx, __be32 addr, __be16 port)
{
	struct dsr_option option = {
		.kind = bpf_htons(DSR_OPTION),
		.port = bpf_htons(port),
		.addr = bpf_htonl(addr),
	};
	struct iphdr old, new;

	if (bpf_skb_load_bytes(ctx, IPV4_OFF, &old, sizeof(old)))
		return DROP_INVALID;
	if (old.ihl > 15 - sizeof(option) / 4)
		return DROP_CT_INVALID_HDR;
	if (bpf_ntohs(old.tot_len) + sizeof(option) > native_mtu)
		return DROP_FRAG_NEEDED;
	new = old;
	new.ihl = old.ihl + sizeof(option) / 4;
	new.tot_len = bpf_htons(bpf_ntohs(old.tot_len) + sizeof(option));
	new.check = dsr_checksum(&old, &new, &option);
	/* The room opens between the fixed header and whatever follows it. */
	if (bpf_skb_adjust_room(ctx, sizeof(option), BPF_ADJ_ROOM_NET, BPF_F_ADJ_ROOM_NO_CSUM_RESET))
		return DROP_INVALID;
	if (bpf_skb_store_bytes(ctx, IPV4_OFF, &new, sizeof(new), 0) ||
	    bpf_skb_store_bytes(ctx, IPV4_OFF + sizeof(new), &option, sizeof(option), 0))
		return DROP_WRITE_ERROR;
	return 0;
}

/*
 * The option has no room: the client is told to send less, as if by the service that it asked. Like
 * Cilium, which tells of packets that might be fragmented just the same: who fragments them is the
 * client, for the option belongs to each piece. Unlike Cilium, which quotes the backend as the
 * error's own source and answers every fragment: only the first has the ports by which a client
 * knows its socket, and RFC 1122 wants no error about others. A verdict or a DROP_*.
 */
static __always_inline int dsr_too_big(struct __sk_buff *ctx, const struct flow4 *flow, __be32 addr,
				       __be16 port)
{
	struct rewrite4 change = {
		.old_addr = flow->tuple.daddr,
		.new_addr = addr,
		.old_port = flow4_dport(flow),
		.new_port = port,
		.l3_off = IPV4_OFF,
		.l4_off = IPV4_OFF + sizeof(struct iphdr),
		.side = REWRITE_SRC,
		.proto = IPPROTO_ICMP,
		.has_l4 = 1,
	};
	__u32 length = ctx->len;
	int ret;

	if (!flow->has_l4)
		return DROP_FRAG_NEEDED;
	ret = icmp4_frag_needed(ctx, native_mtu - sizeof(struct dsr_option));
	/* What the packet was translated to is nothing the client knows. */
	if (!ret)
		ret = rewrite4_quote(ctx, &change);
	/* Whatever kept the client from being told, this is why the packet is lost. */
	if (ret < 0)
		return DROP_FRAG_NEEDED;
	metrics_count(length, (__u8)-DROP_FRAG_NEEDED, METRIC_EGRESS);
	mind_say(ctx, MIND_VERDICT, 0, DROP_FRAG_NEEDED);
	ctx->mark = MARK_MAGIC_SNAT_DONE;
	return bpf_redirect(ctx->ifindex, 0);
}

/* Notes the service address of a packet with the option, for the answers. 1, 0 without one, or a
 * DROP_*. */
VERIFIED_ONCE int dsr_learn(struct __sk_buff *ctx, const struct flow4 *flow)
{
	struct ipv4_nat_entry entry = { .created = now_s(), .needs_ct = 1 };
	struct dsr_option option;
	struct ipv4_ct_tuple out = {};
	long ret;

	if (!flow || flow->l4_off < IPV4_OFF + sizeof(struct iphdr) + sizeof(option))
		return 0;
	if (bpf_skb_load_bytes(ctx, IPV4_OFF + sizeof(struct iphdr), &option, sizeof(option)))
		return DROP_INVALID;
	if (option.kind != bpf_htons(DSR_OPTION))
		return 0;
	out.daddr = flow->tuple.saddr;
	out.saddr = flow->tuple.daddr;
	out.dport = flow4_sport(flow);
	out.sport = flow4_dport(flow);
	out.nexthdr = flow->tuple.nexthdr;
	out.flags = NAT_F_OUT;
	entry.to_addr = bpf_ntohl(option.addr);
	entry.to_port = bpf_ntohs(option.port);
	ret = bpf_map_update_elem(&cilium_snat_v4_external, &out, &entry, BPF_NOEXIST);
	if (!ret)
		runtime_count(RUNTIME_CONFIG_NAT_CREATED);
	else if (ret == -EEXIST)
		ret = bpf_map_update_elem(&cilium_snat_v4_external, &out, &entry, BPF_EXIST);
	return ret ? DROP_NAT_NO_MAPPING : 1;
}

/* An answer of the backend gets the source that dsr_learn() noted. 0 or a DROP_*. */
static __always_inline int dsr_answer(struct __sk_buff *ctx, const struct flow4 *flow)
{
	struct ipv4_ct_tuple out = nat_tuple(flow, NAT_F_OUT);
	const struct ipv4_nat_entry *entry = bpf_map_lookup_elem(&cilium_snat_v4_external, &out);

	nat_note(ctx, &out, entry);
	return nat_rewrite(ctx, flow, entry, REWRITE_SRC);
}
