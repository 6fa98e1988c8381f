/* SPDX-License-Identifier: GPL-2.0 */
/* When the namespace's IPsec policies were last asked: the kernel notes it in each of them. */
#ifndef LAB_PROBES_POLICY_H
#define LAB_PROBES_POLICY_H

#include "sight.h"

#define POLICIES_LOOKED_AT 8
#define POLICY_DIRECTION 7

/* Seconds since 1970 of the latest use of an incoming policy, 0 if there is none or was none. The
 * check itself leaves no other trace: a use between two sights of a packet is its check.
 */
static __noinline u32 policy_used(struct net *net)
{
	const struct list_head *head = &net->xfrm.policy_all, *entry;
	const struct xfrm_policy *policy;
	u64 used, latest = 0;
	int i;

	entry = BPF_CORE_READ(head, next);
	for (i = 0; i < POLICIES_LOOKED_AT; i++) {
		if (!entry || entry == head)
			break;
		policy = (void *)entry - bpf_core_field_offset(struct xfrm_policy, walk.all);
		used = BPF_CORE_READ(policy, curlft.use_time);
		if ((BPF_CORE_READ(policy, index) & POLICY_DIRECTION) == XFRM_IN && used > latest)
			latest = used;
		entry = BPF_CORE_READ(entry, next);
	}
	return latest;
}

#endif
