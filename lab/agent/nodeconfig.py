"""A node's parameters under the names that ``init.sh`` takes them (seed 004, §2.2.1)."""

from __future__ import annotations

import os

from lab.agent.status import Parameter
from lab.names import VXLAN_PORT
from lab.plan.inventory import Inventory, NodeFacts


def parameters(facts: Inventory, node: NodeFacts) -> tuple[Parameter, ...]:
    """Return what ``init.sh`` would be called with on this node; ``nil`` is what the lab lacks."""
    options = facts.topology.options
    tunnel = options.routing == "vxlan"
    # as the constant stands in a header that init.sh generates: network order, read as a number
    number = int.from_bytes(node.address.packed, "little")
    rows = (
        ("LIB", "bpf", "sources of the programs, below the repository"),
        ("RUNDIR", "/run/cilium/state", "state directories of the endpoints"),
        ("IP4_HOST", str(node.router), "address of cilium_host"),
        ("IP6_HOST", "nil", "IPv6 address of cilium_host"),
        ("MODE", "vxlan" if tunnel else "direct", "how packets travel between nodes"),
        ("TUNNEL_MODE", "vxlan" if tunnel else "nil", "encapsulation"),
        ("TUNNEL_PORT", str(VXLAN_PORT) if tunnel else "nil", "UDP port of the tunnel"),
        ("NATIVE_DEVS", "eth0", "devices that lead out of the node"),
        ("XDP_DEV", "eth0" if options.prefilter else "nil", "device with the prefilter"),
        ("XDP_MODE", "generic" if options.prefilter else "nil", "native or generic"),
        ("HOST_DEV1", "cilium_host", "the node's end of the pair into the datapath"),
        ("HOST_DEV2", "cilium_net", "the datapath's end"),
        ("MTU", str(options.mtu), "of every device, bytes"),
        ("IPSEC", "false", "encryption by xfrm"),
        ("ENCRYPT_DEV", "nil", "device that encryption applies to"),
        ("HOSTLB", "false", "services translated at the socket"),
        ("HOSTLB_UDP", "false", "the same for UDP"),
        ("HOSTLB_PEER", "false", "getpeername translated too"),
        ("CGROUP_ROOT", "/sys/fs/cgroup", "where socket programs attach"),
        ("BPFFS_ROOT", "/sys/fs/bpf", "where maps are pinned"),
        ("NODE_PORT", "true", "node ports answered by the datapath"),
        ("NODE_PORT_BIND", "false", "node ports reserved at bind()"),
        ("NODE_PORT_IPV4_ADDRS", f"eth0={number:#x}", "address of node ports, as in memory"),
        ("NODE_PORT_IPV6_ADDRS", "nil", "the same for IPv6"),
        ("MCPU", "v3", "BPF instruction set"),
        ("NR_CPUS", str(os.cpu_count() or 1), "CPUs that per-CPU maps have room for"),
        ("ENDPOINT_ROUTES", str(options.endpoint_routes).lower(), "one route per pod"),
        (
            "PROXY_RULE",
            str(options.proxy_rules).lower(),
            "rules 9 and 10 for marks 0x200 and 0xa00",
        ),
    )
    return tuple(Parameter(name=name, value=value, meaning=text) for name, value, text in rows)
