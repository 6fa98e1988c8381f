"""A probe of one's own on a kernel function: how full is the socket's queue when a datagram comes?

    sudo ./lab.sh vm -- ./lab.sh trace --topology topologies/two_nodes.py client server \\
        --probe docs/socket_queue_probe.py

A probe file has a ``probe``: C for bcc, and which function goes where. What it writes into a
``BPF_PERF_OUTPUT`` becomes lines of that name in the packet's ladder, page and JSON:

- ``u64 ns`` comes first and is the time;
- ``u64 skb``, where the hook knows it, is the address of the packet's buffer: it finds the packet.
  A program on a device (``tc-ingress``, ``tc-egress``, ``xdp``) has no address; it is told apart by
  processor, place and time, and ``u32 ifindex`` helps;
- every other field is the reader's: it is shown under its own name.

Kernel functions need kprobes, which many cloud kernels lack: hence `lab vm`. Tracepoints, tc and
XDP work on every kernel: scenarios/own_probe.py. Text that reads ``struct sk_buff`` or ``struct
sock``, as this one does, needs the headers of the running kernel; the lab says if it took others.
"""

from lab import Attach, Probe

probe = Probe(
    r"""
#include <net/sock.h>

struct arrival {
    u64 ns;
    u64 skb;
    u32 waiting_bytes;
    u32 limit_bytes;
    char running[16];
};
BPF_PERF_OUTPUT(socket_memory);

int arrives(struct pt_regs *ctx, struct sock *sk, struct sk_buff *skb)
{
    struct arrival event = { .ns = bpf_ktime_get_ns(), .skb = (u64)skb };

    event.waiting_bytes = sk->sk_backlog.rmem_alloc.counter;
    event.limit_bytes = sk->sk_rcvbuf;
    bpf_get_current_comm(&event.running, sizeof(event.running));
    socket_memory.perf_submit(ctx, &event, sizeof(event));
    return 0;
}
""",
    attach=(Attach("kprobe", "__udp_enqueue_schedule_skb", "arrives"),),
)
