/* SPDX-License-Identifier: GPL-2.0 */
/* The last step of an answer that was translated back. */
#pragma once

#include "common.h"
#include "config.h"
#include "drop.h"
#include "encap.h"
#include "fib.h"
#include "ipcache.h"
#include "trace.h"

/* To the client at `daddr`: behind the tunnel as whoever answers, else as the node's routes say,
 * with a mark that keeps later hooks from translating it again. A verdict or a DROP_*. */
static __always_inline int leave_for_client(struct __sk_buff *ctx, __be32 daddr,
					    struct drop_info *drop)
{
	struct trace_info trace = {
		.src_label = drop->src_label,
		.from_self = drop->from_self,
	};
	__u32 fib_err = 0;
	__be32 node = 0;
	int ret;

	if (enable_tunnel)
		node = tunnel_endpoint4(ctx, ipcache_lookup4(ctx, daddr), daddr);
	ctx->mark = MARK_MAGIC_SNAT_DONE;
	if (node)
		return encap_redirect(ctx, node, &trace);
	ret = fib_redirect4(ctx, &fib_err);
	drop->ext_err = fib_err;
	return ret;
}
