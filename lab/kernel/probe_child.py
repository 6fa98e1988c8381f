"""The probes themselves, run as a process of its own: ``python -m lab.kernel.probe_child``.

It moves into new network and mount namespaces first, tries everything there, prints one JSON
object (name: empty if it works, else the reason) and ends, which removes all it made. Only the
temporary control group is the host's; it is removed, empty, before the end.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pyroute2.iproute.linux import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from lab.errors import KernelError, LabError
from lab.kernel import cgroup, process, rawbpf
from lab.kernel.bpf import Program
from lab.kernel.bpfattach import Direction, XdpMode, attach_tc, attach_xdp, detach_xdp
from lab.kernel.rawbpf import loaded, returning
from lab.kernel.syscalls import CLONE_NEWNET, CLONE_NEWNS, MS_PRIVATE, MS_REC, mount, unshare
from lab.names import VXLAN_PORT

_NF_INET_PRE_ROUTING, _NFPROTO_IPV4 = 0, 2
_GENEVE_PORT = 6081


class Bench:
    """Where probes try things: a network namespace of their own with one pair of interfaces."""

    def __init__(self) -> None:
        unshare(CLONE_NEWNET | CLONE_NEWNS)
        # or the bpffs mounted below would appear in the machine's own view
        mount("none", "/", flags=MS_REC | MS_PRIVATE)
        self.netlink = IPRoute()
        self.netlink.link("add", ifname="p0", kind="veth", peer="p1")
        self.index = self.netlink.link_lookup(ifname="p0")[0]
        self.netlink.link("set", index=self.index, state="up")

    @contextmanager
    def group(self) -> Iterator[int]:
        """Yield the descriptor of an empty control group."""
        path = cgroup.unified_root() / f"lab-probe-{os.getpid()}"
        cgroup.create(path)
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield fd
        finally:
            os.close(fd)
            cgroup.remove(path)


# numbers below: enum bpf_prog_type for the programs, enum bpf_attach_type for the places
def _tracing(name: str, kind: int, attach: int) -> None:
    wanted = rawbpf.kernel_type(name, kind)
    # TRACING; loading says that the type exists, attaching that the kernel lets its code be changed
    with loaded(26, returning(0), expected_attach=attach, kernel_type=wanted) as fd:
        rawbpf.trace(fd)


def _lsm() -> None:
    if "bpf" not in Path("/sys/kernel/security/lsm").read_text().split(","):
        raise FileNotFoundError(2, "bpf is not among the active security modules")
    wanted = rawbpf.kernel_type("bpf_lsm_socket_create", rawbpf.BTF_FUNC)
    # LSM, as LSM_MAC
    with loaded(29, returning(0), expected_attach=27, kernel_type=wanted) as fd:
        rawbpf.trace(fd)


def _kprobe() -> None:
    # KPROBE
    with loaded(2, returning(0)) as fd:
        rawbpf.kprobe(fd, "ip_rcv")


def _xdp_features() -> None:
    # net/core/dev.c has them where the enum of them is
    rawbpf.kernel_type("netdev_xdp_act", rawbpf.BTF_ENUM)


def _kern_ctx() -> None:
    wanted = rawbpf.kernel_type("bpf_cast_to_kern_ctx", rawbpf.BTF_FUNC)
    # SCHED_CLS, which is where the tracer's hook programs call it
    with loaded(3, rawbpf.calling_kfunc(wanted)):
        pass


def tracing_probes() -> Mapping[str, Callable[[], None]]:
    """Return the probes that attach a program to the kernel's own code, by ability."""
    return {
        "tp_btf": lambda: _tracing("btf_trace_kfree_skb", rawbpf.BTF_TYPEDEF, 23),
        "tp_sk_data_ready": lambda: _tracing("btf_trace_sk_data_ready", rawbpf.BTF_TYPEDEF, 23),
        "fentry": lambda: _tracing("ip_rcv", rawbpf.BTF_FUNC, 24),
        "kprobe": _kprobe,
        "lsm": _lsm,
        "kern_ctx": _kern_ctx,
        "xdp_features": _xdp_features,
    }


def _linked(kind: int, attach: int, target: int, *, result: int = 0, extra: bytes = b"") -> None:
    with loaded(kind, returning(result), expected_attach=attach) as fd:
        rawbpf.link(fd, target, attach, extra)


def _sk_msg() -> None:
    # SK_MSG; attached as SK_MSG_VERDICT
    with loaded(16, returning(1)) as fd:
        rawbpf.attach_to_sockmap(fd, 7)


def _sk_lookup() -> None:
    namespace = os.open("/proc/self/ns/net", os.O_RDONLY)
    try:
        # SK_LOOKUP, whose hook is a network namespace
        _linked(30, 36, namespace, result=1)
    finally:
        os.close(namespace)


def _netfilter() -> None:
    # family, hook, priority, flags; NETFILTER and its place of the same name
    hook = (_NFPROTO_IPV4, _NF_INET_PRE_ROUTING, 1, 0)
    _linked(32, 45, 0, result=1, extra=b"".join(part.to_bytes(4, "little") for part in hook))


def program_probes(bench: Bench) -> Mapping[str, Callable[[], None]]:
    """Return the probes that put a program into a hook of the network, by ability."""

    def xdp(mode: XdpMode) -> None:
        # XDP, which returns XDP_PASS
        with loaded(6, returning(2)) as fd:
            attach_xdp(Program(os.dup(fd)), bench.index, mode)
            detach_xdp(bench.index, mode)

    def clsact() -> None:
        with loaded(3, returning(0)) as fd:
            attach_tc(Program(os.dup(fd)), bench.index, Direction.INGRESS)

    def grouped(kind: int, attach: int) -> None:
        with bench.group() as group:
            _linked(kind, attach, group, result=1)

    def lwt() -> None:
        # LWT_IN, on a route of the documentation's network (RFC 5737)
        with loaded(10, returning(0)) as fd:
            encap = {"type": "bpf", "in": {"fd": fd, "name": "lab"}}
            bench.netlink.route("add", dst="192.0.2.0/24", oif=bench.index, encap=encap)

    return {
        "xdp_native": lambda: xdp(XdpMode.NATIVE),
        "xdp_generic": lambda: xdp(XdpMode.GENERIC),
        "tc_clsact": clsact,
        "tcx": lambda: _linked(3, 46, bench.index),
        "netfilter_link": _netfilter,
        "cgroup_skb": lambda: grouped(8, 0),
        "cgroup_connect4": lambda: grouped(18, 10),
        "sock_ops": lambda: grouped(13, 3),
        "sk_msg": _sk_msg,
        "sk_lookup": _sk_lookup,
        "lwt": lwt,
    }


def network_probes(bench: Bench) -> Mapping[str, Callable[[], object]]:
    """Return the probes that make devices, qdiscs, states and rules, by ability."""

    def device(kind: str, **arguments: object) -> None:
        # the name differs with the kind: devices stay until the process ends
        bench.netlink.link("add", ifname=f"t{len(kind)}{kind[:9]}", kind=kind, **arguments)

    def qdisc(kind: str, **arguments: object) -> None:
        bench.netlink.tc("replace", kind, index=bench.index, **arguments)

    def said(*argv: str) -> None:
        done = process.run(argv, timeout_s=10, check=False)
        if done.returncode:
            first = (done.stderr.strip().splitlines() or [f"{argv[0]} failed"])[0]
            raise KernelError(first.removeprefix("Error: ").rstrip("."))

    redirect = "iptables -t mangle -A PREROUTING -p tcp -j TPROXY --on-port 1"
    esp = "ip xfrm state add src 192.0.2.1 dst 192.0.2.2 proto esp spi 0x1001 mode tunnel"
    key = "0x" + "11" * 20
    rate = {"rate": "10mbit", "burst": 65536, "latency": "50ms"}
    return {
        "veth": lambda: None,  # the bench stands on one
        "bridge": lambda: device("bridge"),
        "vxlan_external": lambda: device(
            "vxlan", vxlan_collect_metadata=1, vxlan_port=VXLAN_PORT, vxlan_learning=0
        ),
        "geneve": lambda: device("geneve", geneve_collect_metadata=True, geneve_port=_GENEVE_PORT),
        "wireguard": lambda: device("wireguard"),
        "netkit": lambda: device("netkit"),
        "dummy": lambda: device("dummy"),
        "ifb": lambda: device("ifb"),
        "vlan": lambda: device("vlan", link=bench.index, vlan_id=5),
        "netem": lambda: qdisc("netem", delay=1000),
        "fq": lambda: qdisc("fq"),
        "tbf": lambda: qdisc("tbf", **rate),
        "esp": lambda: said(*esp.split(), "aead", "rfc4106(gcm(aes))", key, "128"),
        "nftables": lambda: said("nft", "add table inet lab_probe"),
        "tproxy": lambda: said(*redirect.split()),
    }


def bpffs() -> None:
    """Mount a BPF file system over an empty folder of this process's own mount namespace."""
    mount("bpf", "/sys/fs/bpf", "bpf")


def reason(probe: Callable[[], object]) -> str:
    """Run one probe and return why it failed, or an empty string."""
    try:
        probe()
    except NetlinkError as error:
        return str(error.args[1] if len(error.args) > 1 else error)
    except (OSError, LabError) as error:
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return " ".join(text.split())[:200]
    return ""


def main() -> None:
    """Try everything and print the reasons as JSON on standard output."""
    bench = Bench()
    probes = {
        **tracing_probes(),
        **program_probes(bench),
        **network_probes(bench),
        "bpffs": bpffs,
    }
    json.dump({name: reason(probe) for name, probe in probes.items()}, sys.stdout)


if __name__ == "__main__":
    main()
