"""What the lab's machines say of themselves once a packet is lost: devices, routes, settings.

A trace proves where a packet ended. Why it ended there is often the state of a device that the
trace does not show. Each rule looks at that state and answers only if it explains this very end.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lab.observe.headers import Packet, network_bytes_of, parse
from lab.observe.recording import Recording
from lab.observe.why import Diagnosis
from lab.trace import Hop, Step, Trace

if TYPE_CHECKING:
    from lab.runtime.live import Lab

_FRAME_BYTES = 14
_TUNNEL = "cilium_vxlan"
_VXLAN_PORT = 8472
_ROUTES = {
    "Network is unreachable": ("has no route", "Add one there: ip route."),
    "No route to host": (
        "has an `unreachable` route", "Remove it there: ip route show type unreachable.",
    ),
    "Permission denied": ("has a `prohibit` route", "Remove it there: ip route."),
    "Invalid argument": ("has a `blackhole` route", "Remove it there: ip route."),
}  # fmt: skip
"""What `ip route get` says where a packet cannot go: state in words, remedy."""


@dataclass(frozen=True, slots=True)
class _Link:
    """A device as its namespace describes it now."""

    place: str
    device: str
    up: bool
    mtu: int


class Examiner:
    """Rules about one lost packet.

    Args:
        lab: it was lost in.
        recording: of it.
        answer: what the trace alone says.
        sender: where it was sent.
    """

    def __init__(self, lab: Lab, recording: Recording, answer: Diagnosis, sender: str) -> None:
        self.lab = lab
        self.recording = recording
        self.answer = answer
        self.sender = sender

    def examine(self) -> Diagnosis:
        """Return a better answer, or the same."""
        rules: tuple[Callable[[], Diagnosis | None], ...] = (
            self._flooded,
            self._device,
            self._address,
            self._tunnel,
            self._way_out,
            self._way_back,
        )
        for rule in rules:
            if (found := rule()) is not None:
                return found
        return self.answer

    # -- what the machines say -------------------------------------------------------------------

    def _run(self, place: str, *argv: str) -> tuple[int, str, str]:
        done = self.lab.place(place).run(argv)
        return done.returncode, done.stdout, done.stderr

    def _link(self, place: str, device: str) -> _Link | None:
        code, text, _ = self._run(place, "ip", "-j", "link", "show", "dev", device)
        if code or not place:
            return None
        (known,) = json.loads(text)
        return _Link(place, device, "UP" in known["flags"], known["mtu"])

    def _peer(self, place: str, device: str) -> _Link | None:
        """Return the other end of a cable of the lab."""
        nodes = {node.name for node in self.lab.facts.nodes}
        for pod in self.lab.facts.pods:
            if (place, device) == (pod.netns, "eth0"):
                return self._link(pod.node, pod.lxc)
            if (place, device) == (pod.node, pod.lxc):
                return self._link(pod.netns, "eth0")
        if place in nodes and device == "eth0":
            return self._link("underlay", place)
        if place == "underlay" and device in nodes:
            return self._link(device, "eth0")
        return None

    def _no_way(self, place: str, address: str) -> tuple[str, str] | None:
        """Return what keeps a place from sending to an address, None if nothing does."""
        code, _, said = self._run(place, "ip", "route", "get", address)
        if not code:
            return None
        return next((words for text, words in _ROUTES.items() if text in said), None)

    # -- rules -----------------------------------------------------------------------------------

    def _flooded(self) -> Diagnosis | None:
        """A bridge gives frames for an unknown address to everybody: that is nobody's fault."""
        hop, trace = self.answer.hop, self.answer.trace
        packet = _outer(trace, hop)
        if self.answer.reason != "OTHERHOST" or trace is None or packet is None:
            return None
        owner = next(
            (n.name for n in self.lab.facts.nodes if n.address == packet.destination), None
        )
        if owner is None or hop is None or hop.namespace == owner:
            return None
        meant = next((drop for drop in trace.drops if drop.namespace == owner), None)
        if meant is not None:
            where = self.answer.where.replace(_spot(hop), _spot(meant))
            return replace(self.answer, where=where, hop=meant)
        for link in (self._link(owner, "eth0"), self._link("underlay", owner)):
            if link is not None and not link.up:
                effect = f"the bridge knows nobody with {owner}'s MAC address"
                return self._down(link, effect, where=f"on the way to {owner}")
        return Diagnosis(
            known=False,
            where=f"on the way to {owner}",
            cause=f"the bridge gave the frame to everybody, and {owner} was not seen to take it",
            change=f"Look at {owner}'s eth0 and its port of the bridge.",
            trace=trace,
        )

    def _device(self) -> Diagnosis | None:
        """A device takes nothing while it or its other end is down, or what is too large for it."""
        hop = self.answer.hop
        if hop is None or not hop.dropped or hop.program.startswith("cil_") or hop.step:
            return None
        if hop.drop_reason not in ("QDISC_DROP", "DEV_READY", "NOT_SPECIFIED", "DEV_HDR"):
            return None
        ends = [self._link(hop.namespace, hop.device), self._peer(hop.namespace, hop.device)]
        for link in filter(None, ends):
            if not link.up:
                return self._down(link, "it takes nothing")
        there = ends[1]
        if there is not None and hop.length > there.mtu + _FRAME_BYTES:
            return replace(
                self.answer,
                known=True,
                cause=f"its {hop.length - _FRAME_BYTES} bytes are more than {there.device} in "
                f"{there.place} takes (MTU {there.mtu})",
                change=f"Raise that MTU, or send less: ip link set {there.device} mtu 1500.",
            )
        return None

    def _address(self) -> Diagnosis | None:
        """The packet came to its pod, and the pod does not own the address."""
        hop = self.answer.hop
        packet = _outer(self.answer.trace, hop)
        if hop is None or packet is None or hop.step is not Step.IP_ROUTING:
            return None
        address = str(packet.destination)
        owner = next((p for p in self.lab.facts.pods if str(p.address) == address), None)
        if owner is None or owner.netns != hop.namespace:
            return None
        if f" {address}/" in self._run(hop.namespace, "ip", "-4", "addr", "show")[1]:
            return None
        return replace(
            self.answer,
            cause=f"{hop.namespace} does not have the address {address}",
            change=f"Add it there: ip addr add {address}/32 dev eth0.",
        )

    def _tunnel(self) -> Diagnosis | None:
        """What nobody takes may be a whole tunnel packet."""
        hop = self.answer.hop
        packet = _outer(self.answer.trace, hop)
        if hop is None or self.answer.reason != "NO_SOCKET" or packet is None:
            return None
        if packet.ports[1] != _VXLAN_PORT:
            return None
        link = self._link(hop.namespace, _TUNNEL)
        if link is not None and not link.up:
            return self._down(link, "nobody unpacks what comes through the tunnel")
        return replace(
            self.answer,
            cause="nobody unpacks what comes through the tunnel",
            change=f"Look at the tunnel's device: ip -d link show {_TUNNEL}.",
        )

    def _way_out(self) -> Diagnosis | None:
        """The sender's own system call failed."""
        if self.answer.hop is not None or self.recording.error in ("", "timeout"):
            return None
        place = self.lab.place(self.sender)
        device = self._link(getattr(getattr(place, "facts", None), "netns", self.sender), "eth0")
        if device is not None and not device.up:
            return self._down(device, "its routes are gone with it")
        destination = self.recording.destination
        if (way := self._no_way(self.sender, destination)) is not None:
            return replace(
                self.answer,
                known=True,
                cause=f"{self.sender} {way[0]} to {destination}",
                change=way[1],
            )
        return None

    def _way_back(self) -> Diagnosis | None:
        """The packet came and the answer did not leave."""
        trace = self.answer.trace
        if self.answer.known or trace is None or not self.recording.error:
            return None
        ends = [hop for hop in trace.taken if hop.step is Step.L4_RECEIVE]
        place = ends[-1].namespace if ends else ""
        packet = _outer(trace, ends[-1]) if ends else None
        if packet is None:
            return None
        found = self._no_way(place, str(packet.source))
        if found is not None:
            found = f"{found[0]} back to {packet.source}", found[1]
        elif packet.name == "icmp" and self._ignores_echo(place):
            found = (
                "is told not to answer echo requests",
                "Turn it off there: sysctl net.ipv4.icmp_echo_ignore_all=0.",
            )
        elif self._blocked_out(place):
            found = "has an IPsec policy against sending", "Look there: ip xfrm policy."
        if found is None:
            return None
        return Diagnosis(
            where=f"in {place}, which took the packet",
            cause=f"the answer does not leave: {place} {found[0]}",
            change=found[1],
            hop=ends[-1],
            trace=trace,
        )

    def _ignores_echo(self, place: str) -> bool:
        return self._run(place, "sysctl", "-n", "net.ipv4.icmp_echo_ignore_all")[1].strip() == "1"

    def _blocked_out(self, place: str) -> bool:
        _, text, _ = self._run(place, "ip", "xfrm", "policy", "list", "dir", "out")
        return "action block" in text

    def _down(self, link: _Link, effect: str, *, where: str = "") -> Diagnosis:
        return replace(
            self.answer,
            known=True,
            where=where or self.answer.where or f"in {link.place}",
            entry="",
            cause=f"{link.device} in {link.place} is down: {effect}",
            change=f"Set it up there: ip link set {link.device} up.",
        )


def _outer(trace: Trace | None, hop: Hop | None) -> Packet | None:
    """Return the outermost packet at a line: as shown there, or last before in its namespace."""
    if trace is None or hop is None:
        return None
    shown = [
        one
        for one in trace.taken
        if one.before and one.namespace == hop.namespace and one.ns <= hop.ns
    ]
    if not shown:
        return None
    last = shown[-1]
    data = last.before or b""
    return parse(network_bytes_of(data) if last.link_layer == "ethernet" else data, through=False)


def _spot(hop: Hop) -> str:
    return "/".join(filter(None, dict.fromkeys((hop.node, hop.namespace, hop.device))))
