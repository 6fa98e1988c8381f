/* SPDX-License-Identifier: GPL-2.0 */
/* Handing a packet to the node's own stack. */
#pragma once

#include "common.h"
#include "config.h"
#include "eth.h"
#include "identity.h"

/* To the stack of the hook's own device, which decides where it goes; the mark carries `label`. */
static __always_inline int pass_to_stack(struct __sk_buff *ctx, __u32 label)
{
	ctx->mark = identity_mark(label, MARK_MAGIC_IDENTITY);
	return TC_ACT_OK;
}

/*
 * Out of the tunnel, to the node itself: leaves through cilium_net and so arrives on cilium_host,
 * where to-host has the last word. The frame is addressed to cilium_host.
 */
static __always_inline int redirect_to_host(struct __sk_buff *ctx, __u32 label)
{
	int ret = eth_set_addrs(ctx, router_mac, router_mac);

	if (ret < 0)
		return ret;
	ctx->mark = identity_mark(label, MARK_MAGIC_IDENTITY);
	return bpf_redirect(cilium_net_ifindex, 0);
}
