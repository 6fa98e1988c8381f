"""Which compiled program belongs on which device, and under which names its maps are pinned.

The table of the seed documents (004) in Cilium 1.13's names. Programs on the host end of a pod's
veth see the pod's outgoing traffic at tc *ingress*.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


class Role(Enum):
    """What a device is to the datapath."""

    LXC = "lxc"
    HOST = "cilium_host"
    NET = "cilium_net"
    OVERLAY = "cilium_vxlan"
    NATIVE = "native"


class Side(Enum):
    """Where on a device a program sits."""

    INGRESS = "ingress"
    EGRESS = "egress"
    XDP = "xdp"


class Hook(Enum):
    """The spoken names of the hooks; section and program carry the same words."""

    FROM_CONTAINER = "from-container"
    TO_CONTAINER = "to-container"
    FROM_HOST = "from-host"
    TO_HOST = "to-host"
    FROM_NETDEV = "from-netdev"
    TO_NETDEV = "to-netdev"
    FROM_OVERLAY = "from-overlay"
    TO_OVERLAY = "to-overlay"
    XDP = "xdp"
    HANDLE_POLICY = "handle_policy"


@dataclass(frozen=True, slots=True)
class AttachPoint:
    """One program on one side of the devices of one role.

    Attributes:
        hook: its spoken name.
        role: the devices it belongs on.
        side: tc ingress, tc egress or XDP.
        object: file name without suffix, in ``bpf/``.
        program: C function.
        optional: attached only if the configuration asks for it.
    """

    hook: Hook
    role: Role
    side: Side
    object: str
    program: str
    optional: bool = False


ATTACH_POINTS = (
    AttachPoint(Hook.FROM_CONTAINER, Role.LXC, Side.INGRESS, "bpf_lxc", "cil_from_container"),
    # with a route per endpoint only: else programs deliver, and call the policy before they do
    AttachPoint(Hook.TO_CONTAINER, Role.LXC, Side.EGRESS, "bpf_lxc", "cil_to_container", True),
    # what the node itself sends enters cilium_host, so "from the host" is that device's egress
    AttachPoint(Hook.FROM_HOST, Role.HOST, Side.EGRESS, "bpf_host", "cil_from_host"),
    AttachPoint(Hook.TO_HOST, Role.HOST, Side.INGRESS, "bpf_host", "cil_to_host"),
    # cilium_net is the other end of that pair: packets for the node's own stack come out there
    AttachPoint(Hook.TO_HOST, Role.NET, Side.INGRESS, "bpf_host", "cil_to_host"),
    AttachPoint(Hook.FROM_NETDEV, Role.NATIVE, Side.INGRESS, "bpf_host", "cil_from_netdev"),
    AttachPoint(Hook.TO_NETDEV, Role.NATIVE, Side.EGRESS, "bpf_host", "cil_to_netdev"),
    AttachPoint(Hook.FROM_OVERLAY, Role.OVERLAY, Side.INGRESS, "bpf_overlay", "cil_from_overlay"),
    AttachPoint(Hook.TO_OVERLAY, Role.OVERLAY, Side.EGRESS, "bpf_overlay", "cil_to_overlay"),
    AttachPoint(Hook.XDP, Role.NATIVE, Side.XDP, "bpf_xdp", "cil_xdp_entry", True),
)

OBJECTS = ("bpf_lxc", "bpf_host", "bpf_overlay", "bpf_xdp")
"""Objects of the first bring-up, in the order of their first use."""

XDP_OBJECTS = frozenset({"bpf_xdp"})
"""Objects whose programs are XDP; programs in unknown sections of the others are SCHED_CLS."""

GLOBALS = "tc/globals"
"""Folder of the pinned maps below a node's bpffs."""

CALLS = "cilium_calls"
"""Tail-call map: private to one load, always created fresh, its pin exchanged last."""

POLICY = "cilium_policy"
"""Policy map: private to one endpoint, kept when its programs are exchanged."""

CUSTOM_CALLS = "cilium_calls_custom"
"""Tail-call map of one endpoint for the user's programs, kept when its own are exchanged."""

PRIVATE = (CALLS, POLICY, CUSTOM_CALLS)
"""C names of the maps that belong to one device and not to the node."""

CALL_POLICY = "cilium_call_policy"
"""Tail-call map of a node: endpoint id -> that endpoint's ``handle_policy``; filled last."""

OVERLAY_NUMBER = 2
"""Cilium's fixed number for the overlay's tail-call map."""


def attach_points(
    role: Role, object_name: str, *, optional: bool = False
) -> tuple[AttachPoint, ...]:
    """Return the attach points of one object on a device of one role.

    Args:
        role: of the device.
        object_name: as in `AttachPoint.object`.
        optional: also those that are attached only on request.
    """
    return tuple(
        point
        for point in ATTACH_POINTS
        if point.role is role and point.object == object_name and (optional or not point.optional)
    )


def object_of(role: Role) -> str:
    """Return the object whose tc programs belong on devices of ``role``."""
    return next(p.object for p in ATTACH_POINTS if p.role is role and p.side is not Side.XDP)


def private_pins(
    role: Role, *, endpoint_id: int, ifindex: int, xdp: bool = False
) -> Mapping[str, str]:
    """Return the pinned names of the maps that one load does not share with the node.

    Args:
        role: of the device loaded for.
        endpoint_id: of the pod, or of the host endpoint.
        ifindex: of the device.
        xdp: for the XDP object of the device instead of its tc object.

    Returns:
        C map name -> file name below ``tc/globals``.
    """
    if xdp:
        # an XDP and a tc object on one device must not fill each other's slots
        return {CALLS: f"{CALLS}_xdp_{ifindex:05d}"}
    if role is Role.OVERLAY:
        return {CALLS: f"{CALLS}_overlay_{OVERLAY_NUMBER}"}
    policy = {POLICY: f"{POLICY}_{endpoint_id:05d}"}
    if role is Role.LXC:
        custom = {CUSTOM_CALLS: f"{CUSTOM_CALLS}_{endpoint_id:05d}"}
        return {CALLS: f"{CALLS}_{endpoint_id:05d}", **policy, **custom}
    if role is Role.HOST:
        return {CALLS: f"{CALLS}_hostns_{endpoint_id:05d}", **policy}
    return {CALLS: f"{CALLS}_netdev_{ifindex:05d}", **policy}
