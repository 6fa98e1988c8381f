"""The abilities the lab asks a kernel for: what each is for and what to do without it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Need(StrEnum):
    """How much depends on an ability."""

    REQUIRED = "required"
    OPTIONAL = "optional"


@dataclass(frozen=True, slots=True)
class Subject:
    """One thing that is asked.

    Attributes:
        name: short and stable; tests and `-o json` use it.
        group: heading in the table.
        title: what it is, for people.
        purpose: what the lab uses it for.
        without: what to do where it is missing.
        need: whether the lab runs without it.
    """

    name: str
    group: str
    title: str
    purpose: str
    without: str
    need: Need = Need.OPTIONAL


_VM = "lab vm -- COMMAND"
_PROGRAMS = "./lab.sh installs it"


def _required(name: str, group: str, title: str, purpose: str, without: str) -> Subject:
    return Subject(name, group, title, purpose, without, Need.REQUIRED)


MACHINE = (
    _required("root", "machine", "root's capabilities", "namespaces, links, BPF", "use sudo"),
    _required(
        "cgroup2", "machine", "cgroup v2 mounted", "hooks on a pod's sockets", "mount cgroup2"
    ),
    _required("bpffs", "machine", "bpffs mountable", "pinned maps of a node", "CONFIG_BPF_SYSCALL"),
    _required(
        "btf", "machine", "kernel BTF", "tracepoints by type, layouts", "CONFIG_DEBUG_INFO_BTF"
    ),
    _required("clang", "machine", "clang", "compiles bpf/", _PROGRAMS),
    Subject("bpftool", "machine", "bpftool", "an independent look at maps", _PROGRAMS),
    Subject("nft", "machine", "nft", "netfilter scenarios", _PROGRAMS),
    Subject("tshark", "machine", "tshark", "an independent look at packets", _PROGRAMS),
    Subject("mininet", "machine", "Mininet", "the mininet engine", _PROGRAMS),
    Subject("kvm", "machine", "KVM", "a fast `lab vm`", "lab vm works without, ten times slower"),
    Subject("second_kernel", "machine", "second kernel", "lab vm", "./lab.sh vm installs it"),
)
PROGRAMS = (
    _required("tc_clsact", "hooks", "tc (clsact)", "from-container and all tc hooks", _VM),
    _required("cgroup_connect4", "hooks", "cgroup connect4 link", "services at the socket", _VM),
    _required("xdp_generic", "hooks", "XDP generic", "from-netdev in XDP", _VM),
    Subject("xdp_native", "hooks", "XDP native (veth)", "XDP in the driver", "generic XDP is used"),
    Subject(
        "xdp_features",
        "hooks",
        "XDP features of devices",
        "a redirect refused at once",
        "the loss is told at the end of the poll",
    ),  # fmt: skip
    Subject("tcx", "hooks", "tcx link", "the newer tc attachment", "clsact is used"),
    Subject(
        "netfilter_link",
        "hooks",
        "netfilter BPF link",
        "step 11 (10, 14)",
        "functions are probed; without fentry step 11 falls from program to implied",
    ),
    Subject("cgroup_skb", "hooks", "cgroup skb link", "packets of a pod", _VM),
    Subject("sock_ops", "hooks", "sock_ops", "socket acceleration", _VM),
    Subject("sk_msg", "hooks", "sk_msg on a sockmap", "socket acceleration", _VM),
    Subject("sk_lookup", "hooks", "sk_lookup", "step 16", _VM),
    Subject("lwt", "hooks", "lightweight tunnel (route)", "step 13", _VM),
)
TRACING = (
    _required("tp_btf", "tracing", "typed tracepoints (tp_btf)", "the ladder", _VM),
    Subject(
        "tp_sk_data_ready",
        "tracing",
        "tracepoint sk_data_ready",
        "steps 18, 19 (14, 16)",
        "sock_def_readable is probed; without fentry nothing tells of steps 18 and 19",
    ),
    Subject(
        "kern_ctx",
        "tracing",
        "bpf_cast_to_kern_ctx",
        "the packet's address in hooks",
        "step 8 at a stranger's classifier falls from program to implied",
    ),
    Subject(
        "fentry",
        "tracing",
        "fentry on kernel functions",
        "the second witness",
        f"no step has the grade probe; {_VM}",
    ),
    Subject("kprobe", "tracing", "kprobes", "your own probes (bcc)", _VM),
    Subject("lsm", "tracing", "BPF LSM", "your own probes", "a kernel started with lsm=...,bpf"),
)
DEVICES = (
    _required("veth", "devices", "veth", "pods, links", _VM),
    _required("bridge", "devices", "bridge", "the underlay", _VM),
    _required("vxlan_external", "devices", "vxlan, external", "the overlay", _VM),
    Subject("geneve", "devices", "geneve, external", "the other overlay", _VM),
    Subject("wireguard", "devices", "wireguard", "encryption", _VM),
    Subject("netkit", "devices", "netkit", "pods without veth", "a 6.7 kernel or newer"),
    Subject("dummy", "devices", "dummy", "extra addresses", _VM),
    Subject("ifb", "devices", "ifb", "shaping on receive", _VM),
    Subject("vlan", "devices", "vlan", "tagged links", _VM),
)
TRAFFIC = (
    Subject("netem", "traffic", "qdisc netem", "delay and loss by the kernel", _VM),
    Subject("fq", "traffic", "qdisc fq", "pacing, bandwidth manager", _VM),
    Subject("tbf", "traffic", "qdisc tbf", "rate of a link", _VM),
    Subject("esp", "traffic", "IPsec ESP state", "encryption", _VM),
    Subject("nftables", "traffic", "nftables tables", "netfilter scenarios", _VM),
    Subject("tproxy", "traffic", "iptables TPROXY", "the L7 proxy", _VM),
)
SUBJECTS = (*MACHINE, *PROGRAMS, *TRACING, *DEVICES, *TRAFFIC)
