"""Names, addresses and numbers that follow from a description, always the same way.

Nothing here is random: two machines that build the same topology get the same interface
names, MAC addresses, endpoint ids and identities, so traces can be compared.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address

from lab.errors import TopologyError

INTERFACE_NAME_MAX = 15
"""Linux: IFNAMSIZ is 16 bytes with the terminating zero."""

RESERVED_IDENTITIES = {
    "unknown": 0,
    "host": 1,
    "world": 2,
    "unmanaged": 3,
    "health": 4,
    "init": 5,
    "remote-node": 6,
    "kube-apiserver": 7,
    "ingress": 8,
}
"""Cilium's reserved security identities (facts: ``pkg/identity``)."""

MAIN_TABLE, LOCAL_TABLE = 254, 255
"""The kernel's routing tables: where routes go by default, and its own addresses."""

# Linux's default from before IANA assigned 4789, and Cilium's
VXLAN_PORT = 8472
"""UDP port of the tunnel between nodes."""

_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?\Z")
_DNS_SUBDOMAIN = re.compile(r"[a-z0-9]([-.a-z0-9]*[a-z0-9])?\Z")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``did you mean 'x'?``, or a list of what is known, for a hint."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    return "known: " + (", ".join(names) if names else "none")


def check_interface_name(name: str, what: str) -> None:
    """Refuse a name that no Linux interface can carry (``dev_valid_name`` in net/core/dev.c).

    Raises:
        TopologyError: empty, longer than 15 bytes, ``.``/``..``, or with ``/``, ``:`` or blanks.
    """
    if (
        not name
        or len(name.encode()) > INTERFACE_NAME_MAX
        or name in (".", "..")
        or re.search(r"[/:\s]", name)
    ):
        raise TopologyError(
            f"{what} {name!r}: no network interface can carry this name",
            hint=f"use 1 to {INTERFACE_NAME_MAX} bytes without '/', ':' or white space",
        )


def check_node_name(name: str) -> None:
    """Refuse a node name that is no DNS label or does not fit an interface name.

    Raises:
        TopologyError: the name; its port in the underlay's bridge is named like the node.
    """
    check_interface_name(name, "node")
    if not _DNS_LABEL.match(name):
        raise TopologyError(
            f"node {name!r}: not a DNS label", hint="use lower-case letters, digits and '-'"
        )
    # names of namespaces and devices that every lab has; `all` and `default` are folders of sysctl
    if name in ("underlay", "world", "br0", "lo", "all", "default"):
        raise TopologyError(f"node {name!r}: the name is reserved", hint="choose another name")


def check_pod_name(name: str) -> None:
    """Refuse a pod name that Kubernetes would refuse (DNS subdomain, at most 253 characters).

    Raises:
        TopologyError: the name and the rule.
    """
    if not _DNS_SUBDOMAIN.match(name) or len(name) > 253:
        raise TopologyError(
            f"pod {name!r}: not a DNS name that an interface or Kubernetes can carry",
            hint="use lower-case letters, digits, '-' and '.', at most 253 characters",
        )


def lxc_interface(pod_name: str, namespace: str = "default") -> str:
    """Name the node's end of a pod's veth: ``lxc`` + the pod's name where it fits, else a hash."""
    # no dots: they stand between the words of a sysctl's name
    if namespace == "default" and len(pod_name) <= 12 and "." not in pod_name:
        return f"lxc{pod_name}"
    digest = hashlib.sha256(f"{namespace}/{pod_name}".encode()).hexdigest()
    # a DNS name has no underscore, so no pod's own name can look like this
    return f"lxc_{digest[:10]}"


def mac_address(kind: int, address: IPv4Address) -> str:
    """Build a locally administered MAC from a role and the IPv4 address it stands for.

    Args:
        kind: first octet; 0x02 pod and node ``eth0``, 0x06 host end of a pod's veth,
            0x0a ``cilium_host``, 0x0e ``cilium_net``, 0x12 ``cilium_vxlan``, 0x16 the rest.
        address: the last four octets.
    """
    # all kinds have bit 1 of the first octet set (locally administered) and bit 0 clear (unicast)
    return ":".join(f"{octet:02x}" for octet in (kind, 0, *address.packed))


def endpoint_id(address: IPv4Address) -> int:
    """Return the endpoint id of an address: its low 16 bits, so ``10.0.1.10`` is endpoint 266."""
    return int(address) & 0xFFFF


def label_key(labels: Mapping[str, str]) -> tuple[str, ...]:
    """Return labels as a sorted tuple of ``key=value``, the key of identity allocation."""
    return tuple(sorted(f"{key}={value}" for key, value in labels.items()))
