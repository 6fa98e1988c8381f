"""What the lab's machines say of themselves once a packet is lost: devices, routes, settings.

A trace proves where a packet ended. Why it ended there is often the state of a device that the
trace does not show. Each rule looks at that state and answers only if it explains this very end.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from lab.observe.headers import Packet, network_bytes_of, parse
from lab.observe.machines import Link, Machines
from lab.observe.recording import Recording
from lab.observe.why import Diagnosis
from lab.trace import Hop, Step, Trace

if TYPE_CHECKING:
    from lab.runtime.live import Lab

_FRAME_BYTES = 14
_TUNNEL = "cilium_vxlan"
_VXLAN_PORT = 8472


class Examiner(Machines):
    """Rules about one lost packet.

    Args:
        lab: it was lost in.
        recording: of it.
        answer: what the trace alone says.
        sender: where it was sent.
    """

    def __init__(self, lab: Lab, recording: Recording, answer: Diagnosis, sender: str) -> None:
        super().__init__(lab)
        self.recording = recording
        self.answer = answer
        self.sender = sender

    def examine(self) -> Diagnosis:
        """Return a better answer, or the same."""
        rules: tuple[Callable[[], Diagnosis | None], ...] = (
            self._flooded,
            self._not_attached,
            self._device,
            self._address,
            self._route,
            self._service,
            self._nobody,
            self._lost_endpoint,
            self._tunnel,
            self._bound_elsewhere,
            self._neighbour,
            self._way_out,
            self._way_back,
        )
        for rule in rules:
            if (found := rule()) is not None:
                return found
        return self.answer

    # -- rules -----------------------------------------------------------------------------------

    def _flooded(self) -> Diagnosis | None:
        """A bridge gives frames for an unknown address to everybody: that is nobody's fault."""
        hop, trace = self.answer.hop, self.answer.trace
        packet = _outer(trace, hop)
        if self.answer.reason != "OTHERHOST" or trace is None or packet is None:
            return None
        owner = next(
            (
                node.name
                for node in self.lab.facts.nodes
                if node.address == packet.destination or packet.destination in node.pod_cidr
            ),
            None,
        )
        if owner is None or hop is None or hop.node == owner:
            return None
        meant = next((drop for drop in self.recording.drops if drop.namespace == owner), None)
        if meant is not None:
            where = self.answer.where.replace(_spot(hop), _spot(meant))
            return replace(self.answer, where=where, hop=meant)
        for link in (self.link(owner, "eth0"), self.link("underlay", owner)):
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
        ends = [self.link(hop.namespace, hop.device), self.peer(hop.namespace, hop.device)]
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
        """The packet came to its pod or node, which does not own the address."""
        hop = self.answer.hop
        packet = _outer(self.answer.trace, hop)
        if hop is None or packet is None or hop.step is not Step.IP_ROUTING:
            return None
        address = str(packet.destination)
        facts = self.lab.facts
        owners = {str(pod.address): pod.netns for pod in facts.pods}
        owners |= {str(node.address): node.name for node in facts.nodes}
        if owners.get(address) != hop.namespace:
            return None
        # with the slash: 10.0.2.1 must not be found in 10.0.2.10
        if f" {address}/" in self.run(hop.namespace, "ip", "-4", "addr", "show")[1]:
            return None
        return replace(
            self.answer,
            cause=f"{hop.namespace} does not have the address {address}",
            change=f"Add it there (ip addr add {address} dev eth0), and the routes it took along.",
        )

    def _not_attached(self) -> Diagnosis | None:
        """A frame that a program should have redirected was left to the stack, or misdirected."""
        hop = self.answer.hop
        if hop is None or self.answer.reason != "OTHERHOST":
            return None
        if hop.device == _TUNNEL or hop.device.startswith("lxc"):
            ways = ("tc", "filter", "show", "dev", hop.device, "ingress")
            if "cil_from_" in self.run(hop.namespace, *ways)[1]:
                return None
            return replace(
                self.answer,
                cause=f"no program of the datapath sits on ingress of {hop.device}: the frame was "
                "left to the stack, and it is for somebody else",
                entry="",
                change="Build the lab anew: lab down, lab up."
                if hop.device == _TUNNEL
                else "Load it again: lab endpoint regenerate.",
            )
        pod = next((pod for pod in self.lab.facts.pods if pod.netns == hop.namespace), None)
        if pod is None or hop.device != "eth0":
            return None
        believed = self.endpoint(pod.node, str(pod.address))
        own = self.run(pod.netns, "cat", "/sys/class/net/eth0/address")[1].strip()
        if not believed or believed == own:
            return None
        return replace(
            self.answer,
            cause=f"the datapath of {pod.node} sent it to MAC {believed}, and {pod.name} has {own}",
            entry=f"cilium_lxc {pod.address}: mac {believed}",
            change="Correct one of them: lab bpf endpoint list; ip link show eth0.",
        )

    def _lost_endpoint(self) -> Diagnosis | None:
        """The node's own pod is missing in the node's map of endpoints."""
        hop, packet = self.answer.hop, _outer(self.answer.trace, self.answer.hop)
        if hop is None or packet is None or self.answer.reason not in ("UNROUTABLE", "NO_FIB"):
            return None
        address = str(packet.destination)
        pod = next((pod for pod in self.lab.facts.pods if str(pod.address) == address), None)
        if pod is None or pod.node != hop.node or self.endpoint(pod.node, address):
            return None
        return replace(
            self.answer,
            cause=f"the datapath of {pod.node} does not know that {pod.name} is here",
            entry=f"cilium_lxc {address}: no entry",
            change="Look at lab bpf endpoint list, and start the agent anew.",
        )

    def _service(self) -> Diagnosis | None:
        """A service's address answers on its ports only."""
        trace = self.answer.trace
        unknown = self.answer.reason in ("IP_INNOROUTES", "UNROUTABLE", "NO_SOCKET", "")
        if trace is None or not unknown or not self.has_agent():
            return None
        address, asked = self.recording.destination, trace.packet
        here = [
            frontend
            for service in self.lab.agent.services()
            for frontend in service.frontends
            if frontend.address == address and frontend.kind != "NodePort"
        ]
        wanted = (asked.destination_port, asked.protocol.upper())
        if not here or wanted in {(one.port, one.protocol.upper()) for one in here}:
            return None
        ports = ", ".join(sorted({f"{one.protocol.upper()} {one.port}" for one in here}))
        name = here[0].service
        what = "does not answer echo requests" if asked.protocol == "icmp" else (
            f"does not have {asked.protocol.upper()} port {asked.destination_port}"
        )  # fmt: skip
        return replace(
            self.answer,
            known=True,
            cause=f"the service {name} {what}: it has {ports}",
            entry="",
            change="Use a port of the service, or add one to it: lab service list.",
        )

    def _route(self) -> Diagnosis | None:
        """A place on the way does not route the packet onwards."""
        hop = self.answer.hop
        packet = _outer(self.answer.trace, hop)
        if hop is None or hop.step is not Step.IP_ROUTING and hop.hook != "route_output":
            return None
        if hop.drop_reason in ("IP_RPFILTER", "IP_LOCAL_SOURCE") or hop.program.startswith("cil_"):
            return None
        address = str(packet.destination) if packet else ""
        if hop.step is None:  # it asks for itself, with outer addresses that no line shows yet
            asked = [one.key for line in self._here(hop) for one in line.lookups]
            address = asked[-1] if asked else ""
        if not address or not self.owned(address):
            return None
        refused = self.no_way(hop.namespace, address)
        if refused is not None:
            return replace(
                self.answer,
                known=True,
                cause=f"{hop.namespace} {refused[0]} to {address}",
                change=refused[1],
            )
        setting = f"net.ipv4.conf.{hop.device}.forwarding"
        if hop.step and self.run(hop.namespace, "sysctl", "-n", setting)[1].strip() == "0":
            return replace(
                self.answer,
                known=True,
                cause=f"{hop.namespace} does not forward what is for others",
                change="Let it, there: sysctl net.ipv4.ip_forward=1.",
            )
        return None

    def _nobody(self) -> Diagnosis | None:
        """The address is nobody's."""
        address = self.recording.destination
        if self.answer.reason not in ("IP_INNOROUTES", "UNROUTABLE") or not address:
            return None
        if self.owned(address):
            return None
        return replace(
            self.answer,
            cause=f"nobody in the lab has the address {address}",
            change="Correct the destination: lab get pods; lab service list.",
        )

    def _here(self, hop: Hop) -> list[Hop]:
        """Return the trace's lines in the namespace of one of them."""
        trace = self.answer.trace
        return [one for one in trace.taken if one.namespace == hop.namespace] if trace else []

    def _bound_elsewhere(self) -> Diagnosis | None:
        """There is a socket with that port, but it is none for this packet."""
        hop, trace = self.answer.hop, self.answer.trace
        packet = _outer(trace, hop)
        if hop is None or self.answer.reason != "NO_SOCKET" or packet is None:
            return None
        sockets = self.sockets(hop.namespace, packet.name, packet.ports[1])
        if not sockets:
            return None
        local, peer = sockets[0][3], sockets[0][4]
        connected = not peer.endswith(":*")
        return replace(
            self.answer,
            cause=f"the socket on that port is {f'connected to {peer}' if connected else 'bound'} "
            f"at {local} and does not take packets "
            + (f"from {packet.source}" if connected else f"for {packet.destination}"),
            change="Bind it to 0.0.0.0.",
        )

    def _neighbour(self) -> Diagnosis | None:
        """The packet still waits for an answer to an ARP question."""
        hop = self.answer.hop
        if hop is None or self.answer.known or hop.hook != "neighbour":
            return None
        code, text, _ = self.run(hop.namespace, "ip", "-j", "neigh", "show", "dev", hop.device)
        entries = json.loads(text) if not code and text.strip() else []
        silent = [
            one["dst"] for one in entries if {"INCOMPLETE", "FAILED"} & set(one.get("state", ()))
        ]
        asked = {look_up.key for one in self._here(hop) for look_up in one.lookups}
        asked |= {
            w for one in self._here(hop) for k in one.lookups for w in (k.value or "").split()
        }
        silent = [address for address in silent if address in asked]
        # of several nobody knows which one this packet waits for
        if len(silent) != 1:
            return None
        owner = next((n.name for n in self.lab.facts.nodes if str(n.address) == silent[0]), "")
        for link in filter(None, (self.link(owner, "eth0"), self.link("underlay", owner))):
            if owner and not link.up:
                return self._down(link, f"nobody answers the ARP question for {silent[0]}")
        return replace(
            self.answer,
            known=True,
            cause=f"nobody answers the ARP question for {silent[0]}",
            entry="",
            change=f"Look for who should have {silent[0]}: ip neigh; is its device up?",
        )

    def _tunnel(self) -> Diagnosis | None:
        """What nobody takes may be a whole tunnel packet."""
        hop = self.answer.hop
        packet = _outer(self.answer.trace, hop)
        if hop is None or self.answer.reason != "NO_SOCKET" or packet is None:
            return None
        if packet.ports[1] != _VXLAN_PORT:
            return None
        link = self.link(hop.namespace, _TUNNEL)
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
        device = self.link(getattr(getattr(place, "facts", None), "netns", self.sender), "eth0")
        if device is not None and not device.up:
            return self._down(device, "its routes are gone with it")
        destination = self.recording.destination
        if (way := self.no_way(self.sender, destination)) is not None:
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
        found = self.no_way(place, str(packet.source))
        if found is not None:
            found = f"{found[0]} back to {packet.source}", found[1]
        elif packet.name == "icmp" and self.ignores_echo(place):
            found = (
                "is told not to answer echo requests",
                "Turn it off there: sysctl net.ipv4.icmp_echo_ignore_all=0.",
            )
        elif packet.name == "tcp" and (full := self.full(place, packet.ports[1])):
            found = full, "Let the application accept, or give it a larger backlog: ss -ltn."
        elif self.blocked_out(place):
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

    def _down(self, link: Link, effect: str, *, where: str = "") -> Diagnosis:
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
