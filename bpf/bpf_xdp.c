// SPDX-License-Identifier: GPL-2.0
/*
 * The uplink's first hook: before the kernel has even made a packet of the frame.
 *
 *   from-netdev (XDP) ─► pass to the stack and so to from-netdev (tc)
 */
#include "lib/common.h"
#include "lib/config.h"

SEC("from-netdev") int cil_xdp_entry(struct xdp_md *ctx)
{
	(void)ctx;
	return XDP_PASS;
}
