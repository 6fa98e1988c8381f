/* SPDX-License-Identifier: GPL-2.0 */
/* The few kernel structures that the probes read.
 *
 * Only the fields named here are needed; the loader relocates each access to where the running
 * kernel keeps the field (CO-RE), so this header replaces a vmlinux.h of several megabytes. A
 * field that some kernels lack is guarded by bpf_core_field_exists() where it is used.
 */
#ifndef LAB_PROBES_KERNEL_H
#define LAB_PROBES_KERNEL_H

#include <stdbool.h>
#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_tracing.h>

/* BPF_PROG names arguments that not every program uses. */
#pragma clang diagnostic ignored "-Wunused-parameter"

typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct ns_common {
	unsigned int inum;
};

struct nf_hook_entries;
struct bpf_prog;
struct bpf_mprog_entry;
struct mini_Qdisc;

struct list_head {
	struct list_head *next;
};

struct netns_nf {
	struct nf_hook_entries *hooks_ipv4[5];
	struct nf_hook_entries *hooks_ipv6[5];
};

struct xfrm_policy_walk_entry {
	struct list_head all;
};

struct xfrm_lifetime_cur {
	__u64 use_time;
};

struct xfrm_policy {
	u32 index;
	struct xfrm_lifetime_cur curlft;
	struct xfrm_policy_walk_entry walk;
};

struct netns_xfrm {
	struct list_head policy_all;
	unsigned int policy_count[6];
	u8 policy_default[3];
};

struct net {
	struct ns_common ns;
	struct list_head ptype_all;
	struct netns_nf nf;
	struct netns_xfrm xfrm;
};

typedef struct {
	struct net *net;
} possible_net_t;

struct bpf_xdp_entity {
	struct bpf_prog *prog;
};

struct net_device {
	int ifindex;
	possible_net_t nd_net;
	struct bpf_prog *xdp_prog;
	struct bpf_xdp_entity xdp_state[3];
	void *rx_handler;
	struct nf_hook_entries *nf_hooks_ingress;
	struct bpf_mprog_entry *tcx_ingress;
	struct mini_Qdisc *miniq_ingress;
	struct list_head ptype_all;
};

struct sock_common {
	unsigned short skc_family;
	unsigned char skc_state;
	possible_net_t skc_net;
	__be16 skc_dport;
	unsigned short skc_num;
};

struct sk_buff;

struct sk_buff_head {
	struct sk_buff *prev;
	__u32 qlen;
};

struct sock {
	struct sock_common __sk_common;
	struct sk_buff_head sk_receive_queue;
	void *sk_data_ready;
	u16 sk_protocol;
};

struct sk_buff {
	struct net_device *dev;
	struct sock *sk;
	unsigned long _skb_refdst;
	unsigned long _nfct;
	unsigned int len;
	unsigned int data_len;
	__u8 pkt_type : 3;
	__u8 tc_at_ingress : 1;
	__u8 redirected : 1;
	__u8 active_extensions;
	char cb[48];
	__u32 hash;
	__u32 mark;
	__be16 protocol;
	__u16 transport_header;
	__u16 network_header;
	__u16 mac_header;
	__u32 tail;
	__u32 end;
	unsigned char *head;
	unsigned char *data;
};

struct napi_struct {
	struct net_device *dev;
	void *poll;
};

struct flowi_common {
	int flowic_iif;
	__u8 flowic_proto;
};

union flowi_uli {
	struct {
		__be16 dport;
		__be16 sport;
	} ports;
};

struct flowi4 {
	struct flowi_common __fl_common;
	__be32 saddr;
	__be32 daddr;
	union flowi_uli uli;
};

struct fib_nh_common {
	struct net_device *nhc_dev;
	union {
		__be32 ipv4;
	} nhc_gw;
};

struct neigh_table {
	int family;
};

struct neighbour {
	struct neigh_table *tbl;
	u8 nud_state;
	struct net_device *dev;
	u8 primary_key[];
};

struct nf_hook_state {
	u8 hook;
	u8 pf;
	struct net_device *in;
	struct net_device *out;
	struct net *net;
};

struct bpf_nf_ctx {
	const struct nf_hook_state *state;
	struct sk_buff *skb;
};

typedef union {
	__be32 a4;
} xfrm_address_t;

struct xfrm_id {
	xfrm_address_t daddr;
	__be32 spi;
};

struct xfrm_state {
	possible_net_t xs_net;
	struct xfrm_id id;
	struct {
		u8 mode;
	} props;
};

/* What IPsec keeps in skb->cb of a packet under its hands. */
struct xfrm_skb_cb {
	union {
		struct {
			u32 low;
		} output;
	} seq;
};

enum skb_ext_id {
	SKB_EXT_SEC_PATH = 1,
};

struct dst_entry {
	struct net_device *dev;
	struct xfrm_state *xfrm;
	void *input;
	void *output;
};

struct rtable {
	struct dst_entry dst;
	__u16 rt_type;
};

#pragma clang attribute pop

/* Gives a hook program the kernel's own buffer instead of the copy of fields it is shown. */
extern void *bpf_cast_to_kern_ctx(void *obj) __ksym __weak;

/* Lets a netfilter program read what is not in the buffer itself but in its pages. */
extern int bpf_dynptr_from_skb(struct __sk_buff *skb, __u64 flags,
			       struct bpf_dynptr *packet) __ksym __weak;

#endif
