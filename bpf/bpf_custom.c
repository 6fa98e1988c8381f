// SPDX-License-Identifier: GPL-2.0
/*
 * An example of a custom call: bytes by the identity of the other side. To be put into a slot of
 * an endpoint's cilium_calls_custom_NNNNN.
 */
#include "lib/common.h"
#include "lib/config.h"
#include "lib/custom.h"

/* Written here, read by whoever put the program in. Capacity: identities seen. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u64);
} bytecount_map SEC(".maps");

SEC("tc/custom") int custom_bytecount(struct __sk_buff *ctx)
{
	__u32 identity = custom_identity(ctx);
	__u64 *bytes = bpf_map_lookup_elem(&bytecount_map, &identity);
	__u64 first = ctx->len;

	if (bytes)
		__sync_fetch_and_add(bytes, ctx->len);
	else
		bpf_map_update_elem(&bytecount_map, &identity, &first, BPF_ANY);
	return custom_verdict(ctx);
}
