"""Beginning a packet's way in the middle: at a hook or a device instead of at a socket.

A device that is to *receive* the frame is fed from the other end of its cable, past every program
there, so that its own hooks are the first to see it. For a hook on the way out (``to-container``,
``from-host``, ``to-netdev``, ``to-overlay``) the frame is put on the device itself. The tunnel's
device is fed by a VXLAN packet that its node sends to itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from lab.errors import CheckFailed, InputError
from lab.names import RESERVED_IDENTITIES, VXLAN_PORT, did_you_mean, mac_address
from lab.observe.flood import with_arriving_copy
from lab.observe.recording import PROTOCOLS, Recording, Shot, client_port, destination_of
from lab.observe.tracer import Flow, Tracer
from lab.packets import new_cookie, with_cookie
from lab.plan.inventory import UNDERLAY, WORLD, NodeFacts, PodFacts

if TYPE_CHECKING:
    from lab.runtime.live import Lab

_SETTLE_S = 0.1
_PODS = frozenset({"from-container", "to-container"})
_OF_SENDER = frozenset({"from-host", "to-netdev", "to-overlay"})
# a VXLAN sender takes it from the flow's hash; no receiver looks at it
_TUNNEL_PORT = 53000


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Where and how a frame gets into the lab.

    Attributes:
        hook: the first hook or device that sees it, as asked for.
        via: place whose device the frame is put on.
        device: that device; empty for a VXLAN packet that the node sends to itself.
        past: leave out the programs of that device's own egress.
        first: namespace in which it is seen first.
        macs: source and destination in the frame.
        node: behind the hook; None if there is none.
        wire: a place between nodes, where a tunnelled packet is wrapped.
    """

    hook: str
    via: str
    device: str = "eth0"
    past: bool = False
    first: str = ""
    macs: tuple[str, str]
    node: NodeFacts | None = None
    wire: bool = False


def entries(lab: Lab) -> Mapping[str, Entry]:
    """Return every entry of a lab by its full name: ``HOOK@PLACE`` and ``PLACE/DEVICE``."""
    found = {}
    for node in lab.facts.nodes:
        for entry in _of_node(node, _gateway_mac(lab)):
            found[entry.hook] = entry
        for pod in node.pods:
            for entry in _of_pod(node, pod):
                found[entry.hook] = entry
    return found


def _gateway_mac(lab: Lab) -> str:
    return mac_address(0x02, lab.facts.gateway)


def _of_node(node: NodeFacts, gateway: str) -> Iterator[Entry]:
    name = node.name
    # the bridge's port is the other end of the node's cable, and is called like the node
    uplink = Entry(hook="", via=UNDERLAY, device=name, past=True, first=name,
                   macs=(gateway, node.mac), node=node, wire=True)  # fmt: skip
    router = Entry(hook="", via=name, device="cilium_net", past=True, first=name,
                   macs=(node.net_mac, node.host_mac), node=node)  # fmt: skip
    tunnel = Entry(hook="", via=name, device="", first=name, macs=("", node.vxlan_mac), node=node)
    # not past the device's own egress: that is where these hooks are
    outwards = Entry(hook="", via=name, first=name, macs=(node.host_mac, node.net_mac), node=node)
    for where in (f"from-netdev@{name}", f"xdp@{name}", f"{name}/eth0"):
        yield replace(uplink, hook=where)
    for where in (f"to-host@{name}", f"{name}/cilium_host"):
        yield replace(router, hook=where)
    for where in (f"from-overlay@{name}", f"{name}/cilium_vxlan"):
        yield replace(tunnel, hook=where)
    yield replace(outwards, hook=f"{name}/cilium_net", device="cilium_host", past=True)
    yield replace(outwards, hook=f"from-host@{name}", device="cilium_host")
    yield replace(outwards, hook=f"to-overlay@{name}", device="cilium_vxlan")
    yield replace(outwards, hook=f"to-netdev@{name}", macs=(node.mac, gateway), wire=True)


def _of_pod(node: NodeFacts, pod: PodFacts) -> Iterator[Entry]:
    leaving = Entry(hook="", via=pod.name, past=True, first=node.name,
                    macs=(pod.mac, pod.lxc_mac), node=node)  # fmt: skip
    for where in (f"from-container@{pod.name}", f"{node.name}/{pod.lxc}"):
        yield replace(leaving, hook=where)
    arriving = Entry(hook=f"to-container@{pod.name}", via=node.name, device=pod.lxc,
                     first=node.name, macs=(pod.lxc_mac, pod.mac), node=node)  # fmt: skip
    yield arriving
    yield replace(arriving, hook=f"{pod.name}/eth0", past=True, first=pod.netns)


def entry_at(lab: Lab, at: str, sender: str, receiver: str) -> Entry:
    """Return the entry that ``--at`` names.

    A hook without a place is the one on the packet's way: ``from-container`` at the sender,
    ``from-host``, ``to-netdev`` and ``to-overlay`` at the sender's node, ``to-container`` at the
    receiver, the others at the receiver's node.

    Raises:
        InputError: the lab has no such hook or device; the hint names the nearest.
    """
    known = entries(lab)
    hooks = {name.partition("@")[0] for name in known if "@" in name}
    name = at.removeprefix("default/")
    if name in hooks:
        name = f"{name}@{_place_of(lab, name, sender, receiver)}"
    if name not in known:
        near = did_you_mean(name, known)
        raise InputError(
            f"--at {at!r}: no hook or device at which a packet can begin in lab {lab.name!r}",
            hint=f"{near}; " * near.startswith("did") + f"hooks: {', '.join(sorted(hooks))}, each "
            "also as HOOK@PLACE; devices: NODE/DEVICE, POD/eth0",
        )
    return known[name]


def _place_of(lab: Lab, hook: str, sender: str, receiver: str) -> str:
    wanted = sender if hook in _OF_SENDER or hook == "from-container" else receiver
    other = receiver if wanted == sender else sender
    pods = {pod.name: pod for pod in lab.facts.pods}
    nodes = {node.name for node in lab.facts.nodes}
    for place in (wanted,) if hook in _PODS else (wanted, other):
        name = place.removeprefix("default/")
        if hook in _PODS and name in pods:
            return name
        if hook not in _PODS and (name in nodes or name in pods):
            return name if name in nodes else pods[name].node
    raise InputError(
        f"--at {hook}: {wanted!r} is no {'pod' if hook in _PODS else 'pod or node'}",
        hint=f"say which: --at {hook}@PLACE",
    )


def follow_at(lab: Lab, sender: str, receiver: str, shot: Shot, at: str) -> Recording:
    """Put one packet into the lab so that a hook is the first to see it, and follow it.

    Its addresses are those of sender and receiver; TCP sends a SYN. On the wire between two
    nodes a packet between pods is wrapped as the sender's node wraps it. Nobody waits for an
    answer: the packets of the answer are in the recording if they came.

    Args:
        lab: must be up.
        sender: pod, node or ``world``.
        receiver: the same, or an address.
        shot: what to send.
        at: ``HOOK``, ``HOOK@PLACE`` or ``PLACE/DEVICE``.

    Raises:
        InputError: a place, protocol or entry that does not exist.
        CheckFailed: nothing at all was seen of the packet.
    """
    if shot.protocol not in PROTOCOLS:
        raise InputError(
            f"{shot.protocol!r} is no protocol that can be sent", hint="udp, tcp or icmp"
        )
    source = lab.place(sender)
    destination, goal = destination_of(lab, receiver)
    entry = entry_at(lab, at, sender, receiver)
    cookie, port = new_cookie(), client_port()
    # a place with several addresses sends from the one that its route prefers
    own = source.call("source_of", address=destination)["address"] or str(source.address)
    macs = _macs(lab, entry, sender, receiver)
    frame = _frame(macs, (own, destination), port, shot, cookie)
    with ExitStack() as stack:
        tracer = stack.enter_context(Tracer(lab))
        if shot.listen and goal is not None and shot.protocol != "icmp":
            serve = goal.serve_udp if shot.protocol == "udp" else goal.serve_tcp
            stack.enter_context(serve(shot.port))
        if shot.protocol == "tcp":
            # a SYN has no payload to carry a cookie
            tracer.only_flow(Flow(source=own, source_port=port, protocol=6))
        else:
            # an echo request has no ports to narrow by
            ends = port if shot.protocol == "udp" else 0
            tracer.only_cookie(cookie, sender=entry.first, source_port=ends)
        _inject(lab, entry, frame, (sender, receiver))
        recording = Recording()
        found = tracer.traces(settle_s=_SETTLE_S)
        recording.packets = (with_arriving_copy(found[0], found), *found[1:]) if found else ()
    if not recording.packets:
        raise CheckFailed(
            f"nothing was seen of the packet put in at {entry.hook}",
            hint="is the device up? try `lab exec`",
        )
    return recording


def _macs(lab: Lab, entry: Entry, sender: str, receiver: str) -> tuple[str, str]:
    """Between nodes the frame comes from, or goes to, the node of the far end if it has one."""
    if not entry.wire or entry.node is None:
        return entry.macs
    nodes = {node.name: node.mac for node in lab.facts.nodes}
    nodes |= {pod.name: nodes[pod.node] for pod in lab.facts.pods}
    source, goal = entry.macs
    # into the node: from the sender's node; out of it, below: to the receiver's
    if entry.past:
        far = nodes.get(sender.removeprefix("default/"), source)
        return (source if far == goal else far), goal
    far = nodes.get(receiver.removeprefix("default/"), goal)
    return source, (goal if far == source else far)


def _frame(
    macs: tuple[str, str], addresses: tuple[str, str], port: int, shot: Shot, cookie: int
) -> bytes:
    from lab.packets import frames

    # the tunnel's device has no neighbour that would send it: any other address will do
    macs = (macs[0] or macs[1][:-2] + "fe", macs[1])
    ports = (port, shot.port)
    if shot.protocol == "tcp":
        return frames.tcp(macs, addresses, ports)
    payload = with_cookie(shot.payload, cookie)
    if shot.protocol == "icmp":
        return frames.icmp_echo(macs, addresses, port, payload)
    return frames.udp(macs, addresses, ports, payload)


def _inject(lab: Lab, entry: Entry, frame: bytes, ends: tuple[str, str]) -> None:
    from lab.packets import frames

    node, identity = entry.node, _identity(lab, ends[0])
    via = lab.place(entry.via)
    if not entry.device:
        assert node is not None
        # the kernel builds the outer headers: its own VXLAN socket has to take the datagram
        packet = frames.vxlan_payload(frame, identity)
        via.call("udp_send", address=str(node.address), port=VXLAN_PORT,
                 payload=packet.hex(), source_port=_TUNNEL_PORT, want_reply=False)  # fmt: skip
        return
    if entry.wire and node is not None and (outer := _outer(lab, node, ends)) is not None:
        inner = entry.macs[0], node.vxlan_mac
        ports = (_TUNNEL_PORT, VXLAN_PORT)
        packet = frames.vxlan_payload(frames.with_macs(frame, inner), identity)
        frame = frames.udp(_macs(lab, entry, *ends), outer, ports, packet)
    via.call("inject", frame=frame.hex(), device=entry.device, past_egress=entry.past)


def _outer(lab: Lab, node: NodeFacts, ends: tuple[str, str]) -> tuple[str, str] | None:
    """Addresses of the tunnel that a packet between two pods is in at a node's uplink."""
    if lab.topology.options.routing != "vxlan" or not lab.topology.options.datapath:
        return None
    pods = {pod.name: pod for pod in lab.facts.pods}
    sender, receiver = (pods.get(end.removeprefix("default/")) for end in ends)
    if sender is None or receiver is None or sender.node == receiver.node:
        return None
    addresses: dict[str, IPv4Address] = {one.name: one.address for one in lab.facts.nodes}
    if node.name not in (sender.node, receiver.node):
        return None
    return str(addresses[sender.node]), str(addresses[receiver.node])


def _identity(lab: Lab, sender: str) -> int:
    for pod in lab.facts.pods:
        if pod.name == sender.removeprefix("default/"):
            return pod.identity
    return RESERVED_IDENTITIES["world" if sender == WORLD else "remote-node"]
