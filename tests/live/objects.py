"""Small BPF sources for tests of the loader, compiled where a test wants them."""

from pathlib import Path

from lab.datapath.build import FLAGS, build

HEAD = """
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>
char _license[] SEC("license") = "GPL";
"""

COUNTER = (
    HEAD
    + """
const volatile __u16 endpoint_id;
const volatile __u32 interface_ifindex;
struct { __uint(type, BPF_MAP_TYPE_PROG_ARRAY); __uint(max_entries, 48); __type(key, __u32);
	__type(value, __u32); } cilium_calls SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PROG_ARRAY); __uint(max_entries, 65535); __type(key, __u32);
	__type(value, __u32); } cilium_call_policy SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 3); __type(key, __u32);
	__type(value, __u64); } counters SEC(".maps");

static __always_inline void count(__u32 slot)
{
	__u64 *value = bpf_map_lookup_elem(&counters, &slot);

	if (value)
		__sync_fetch_and_add(value, 1);
}

__attribute__((btf_decl_tag("tail:cilium_calls/7"))) SEC("tc/tail")
int second_half(struct __sk_buff *ctx)
{
	count(0);
	ctx->mark = endpoint_id;
	return TC_ACT_SHOT;
}

__attribute__((btf_decl_tag("tail:cilium_call_policy/ENDPOINT_ID"))) SEC("tc/tail")
int handle_policy(struct __sk_buff *ctx)
{
	count(2);
	return TC_ACT_OK;
}

SEC("from-container") int cil_from_container(struct __sk_buff *ctx)
{
	bpf_tail_call_static(ctx, &cilium_calls, 7);
	count(1); /* the tail call was missed */
	return TC_ACT_SHOT;
}
"""
)

REFUSED = (
    HEAD
    + """
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 8); __type(key, __u32);
	__type(value, __u64); } numbers SEC(".maps");

SEC("from-container") int cil_from_container(struct __sk_buff *ctx)
{
	__u32 key = 1;
	__u64 *value = bpf_map_lookup_elem(&numbers, &key);

	return *value;
}
"""
)

MAPS = (
    HEAD
    + """
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 4000); __type(key, __u32);
	__type(value, __u64); } hash SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERCPU_HASH); __uint(max_entries, 8); __type(key, __u32);
	__type(value, __u32); } percpu SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_LPM_TRIE); __uint(max_entries, 8);
	__uint(map_flags, BPF_F_NO_PREALLOC); __uint(key_size, 8); __uint(value_size, 1);
	} trie SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 4); __type(key, __u32);
	__type(value, __u64); } array SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY); __uint(max_entries, 0);
	__type(key, __u32); __type(value, __u32); } events SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } ring SEC(".maps");

SEC("xdp") int speak(struct xdp_md *ctx)
{
	__u64 word = 0x1122334455667788;

	bpf_perf_event_output(ctx, &events, BPF_F_CURRENT_CPU, &word, sizeof(word));
	return bpf_ringbuf_output(&ring, &word, sizeof(word), 0) ? XDP_DROP : XDP_PASS;
}

SEC("cgroup/connect4") int refuse(struct bpf_sock_addr *ctx)
{
	return 0;
}
"""
)


def compiled(folder: Path, name: str, source: str) -> Path:
    """Compile a source under ``name``.c and return the object."""
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.c").write_text(source)
    flags = (*FLAGS, "-Wno-unused-parameter")
    return build([folder / f"{name}.c"], root=folder, flags=flags, cache=folder)[0]
