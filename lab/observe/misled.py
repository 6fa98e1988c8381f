"""Packets that went where nobody wanted them: a wrong address, port, tunnel, service or socket."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from lab.names import VXLAN_PORT
from lab.observe.addressed import Readdressed, answers, inside, outside, readdressed
from lab.observe.headers import Packet
from lab.observe.machines import Link, Machines
from lab.observe.recording import Recording
from lab.observe.why import Diagnosis, change_of

if TYPE_CHECKING:
    from lab.runtime.live import Lab

TUNNEL = "cilium_vxlan"
_PREFILTER = ("cilium_cidr_v4_fix", "cilium_cidr_v4_dyn")


class Misled(Machines):
    """Rules about where a lost packet was sent.

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

    @property
    def outer(self) -> Packet | None:
        """The outermost packet where it was lost, None if unreadable."""
        return outside(self.answer.trace, self.answer.hop)

    @property
    def changed(self) -> Readdressed | None:
        """How the lost packet's own destination was changed last."""
        hop, trace = self.answer.hop, self.answer.trace
        return readdressed(trace, hop) if hop is not None and trace is not None else None

    @property
    def is_answer(self) -> bool:
        """Whether it is the answer that was lost."""
        trace, packets = self.answer.trace, self.recording.packets
        if trace is None or not packets:
            return False
        return answers(trace, packets[0], self.recording.destination)

    def down(self, link: Link, effect: str, *, where: str = "") -> Diagnosis:
        """Return the answer that a device is down."""
        return replace(
            self.answer,
            known=True,
            where=where or self.answer.where or f"in {link.place}",
            entry="",
            cause=f"{link.device} in {link.place} is down: {effect}",
            change=f"Set it up there: ip link set {link.device} up.",
        )

    # -- rules -----------------------------------------------------------------------------------

    def not_turned_back(self) -> Diagnosis | None:
        """The answer comes from somebody who was not asked, or to somebody who left."""
        packet = self.outer
        if self.answer.reason != "NO_SOCKET" or not self.is_answer or packet is None:
            return None
        if str(packet.source) == self.recording.destination:
            return replace(
                self.answer,
                cause=f"nobody waits for the answer on {_port_of(packet)} any more: it came late",
                change="Wait longer, or look for what delays it: lab trace --plot FILE.",
            )
        return replace(
            self.answer,
            cause=f"the answer comes from {packet.source}, and {packet.destination} had asked "
            f"{self.recording.destination}: nothing translated it back",
            change="Look at the service's reverse translation: lab bpf lb; lab bpf ct.",
        )

    def service(self) -> Diagnosis | None:
        """A service's address answers on its ports only."""
        trace = self.answer.trace
        unknown = self.answer.reason in ("IP_INNOROUTES", "UNROUTABLE", "NO_SOCKET", "")
        if trace is None or not unknown or not self.has_agent() or self.is_answer:
            return None
        address, asked = self.recording.destination, trace.packet
        wanted = (asked.destination_port, asked.protocol.upper())
        served = [
            frontend
            for service in self.lab.agent.services()
            for frontend in service.frontends
            if frontend.address == address
        ]
        right = [one for one in served if (one.port, one.protocol.upper()) == wanted]
        nodes = {node.name for node in self.lab.facts.nodes}
        if right and self.sender in nodes and not self.changed:
            return self._from_a_node(right[0].service)
        # a node's address is not the service's own: node ports have neighbours
        here = [one for one in served if one.kind != "NodePort"]
        if not here or right:
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

    def _from_a_node(self, service: str) -> Diagnosis:
        """Translation has two places, and a node's own sockets send past both."""
        return replace(
            self.answer,
            known=True,
            cause=f"the service {service} is for what pods send and for what comes from outside: "
            f"nothing translates what {self.sender}'s own sockets send",
            entry="",
            change="Ask from a pod, or a node port of another node: lab service list.",
        )

    def nobody(self) -> Diagnosis | None:
        """The address is nobody's."""
        lost = self.answer.reason in ("IP_INNOROUTES", "UNROUTABLE") or (
            self.answer.hop is not None and self.answer.hop.hook == "ip_forward"
        )
        if not lost or not self.recording.destination or self.is_answer:
            return None
        changed = self.changed
        address = str(changed.meant[0]) if changed else self.recording.destination
        if self.owned(address) or not changed and self._served(address):
            return None
        told = f": {changed.by} sent it there" if changed else ""
        return replace(
            self.answer,
            cause=f"nobody in the lab has the address {address}{told}",
            change="Correct the service's backends: lab service list; lab bpf lb."
            if changed and changed.rule is None
            else change_of(changed.rule)
            if changed and changed.rule
            else "Correct the destination: lab get pods; lab service list.",
        )

    def turned_away(self) -> Diagnosis | None:
        """A node's prefilter turns sources away in XDP."""
        hop, packet = self.answer.hop, self.outer
        nodes = {node.name for node in self.lab.facts.nodes}
        if hop is None or packet is None or hop.hook not in ("xdp", "generic_xdp"):
            return None
        if hop.namespace not in nodes or not self.lab.topology.options.prefilter:
            return None
        for name in _PREFILTER:
            with self.lab.node(hop.namespace).map(name) as listed:
                networks = [key.network for key, _ in listed.items()]
            if found := [one for one in networks if packet.source in one]:
                return replace(
                    self.answer,
                    cause=f"the prefilter of {hop.namespace} turns {packet.source} away",
                    entry=f"{name} {found[0]}",
                    change="Take that network off the list: lab bpf prefilter shows it.",
                )
        return None

    def tunnel(self) -> Diagnosis | None:
        """What nobody takes may be a whole tunnel packet."""
        hop, packet = self.answer.hop, self.outer
        if hop is None or self.answer.reason != "NO_SOCKET" or packet is None:
            return None
        if packet.ports[1] != VXLAN_PORT:
            return None
        if hop.namespace not in {node.name for node in self.lab.facts.nodes}:
            meant = inside(hop)
            wanted = str(meant.destination) if meant else self.recording.destination
            return replace(
                self.answer,
                cause=f"the tunnel for {wanted} leads to {packet.destination}: that is "
                f"{hop.namespace}, which is no node",
                entry="",
                change=f"Correct the entry for {wanted} on {packet.source}: lab bpf ipcache; "
                "lab bpf tunnel.",
            )
        link = self.link(hop.namespace, TUNNEL)
        if link is not None and not link.up:
            return self.down(link, "nobody unpacks what comes through the tunnel")
        return replace(
            self.answer,
            cause="nobody unpacks what comes through the tunnel",
            change=f"Look at the tunnel's device: ip -d link show {TUNNEL}.",
        )

    def bound_elsewhere(self) -> Diagnosis | None:
        """There is a socket with that port, but it is none for this packet."""
        hop, packet = self.answer.hop, self.outer
        if hop is None or self.answer.reason != "NO_SOCKET" or packet is None:
            return None
        sockets = self.sockets(hop.namespace, packet.name, packet.ports[1])
        if not sockets:
            return None
        reasons = [_refusal(one[3], one[4], packet, hop.device) for one in sockets]
        if "" in reasons:
            local = sockets[reasons.index("")][3]
            return replace(
                self.answer,
                known=False,
                cause=f"the kernel chose no socket, though the one bound at {local} could take it",
                change="Was it opened just now? A program may choose the socket: bpftool net.",
            )
        connected = "connected" in reasons[0]
        return replace(
            self.answer,
            cause=f"the socket on that port is {reasons[0]}",
            change="Connect it to nobody." if connected
            else "Bind it to no device." if "device" in reasons[0] else "Bind it to 0.0.0.0.",
        )  # fmt: skip

    def other_port(self) -> Diagnosis | None:
        """Nobody listens: on which port, and who chose it."""
        packet, changed = self.outer, self.changed
        if self.answer.reason != "NO_SOCKET" or packet is None or packet.ports[1] == VXLAN_PORT:
            return None
        port, change = _port_of(packet), self.answer.change
        if changed is not None:
            address, asked = changed.asked
            port += f", to which {changed.by} sent it (it was sent to {address}:{asked})"
            change = (
                f"{change_of(changed.rule)} Or start a server on port {packet.ports[1]}."
                if changed.rule is not None
                else f"Start the server on port {packet.ports[1]}, or correct the service's "
                "target port: lab service list."
                if changed.hop.program.startswith("cil_")
                else f"Look at the programs there: bpftool net in {changed.hop.namespace}."
            )
        cause = self.answer.cause.replace("on that port", f"on {port}")
        return replace(self.answer, cause=cause, change=change)

    # -- parts of them ---------------------------------------------------------------------------

    def _served(self, address: str) -> bool:
        return self.has_agent() and any(
            frontend.address == address
            for service in self.lab.agent.services()
            for frontend in service.frontends
        )


def _port_of(packet: Packet) -> str:
    return f"{packet.name.upper()} port {packet.ports[1]}"


def _refusal(local: str, peer: str, packet: Packet, device: str) -> str:
    """Say why a socket, as ``ss`` prints it, does not take a packet; empty if it could."""
    address, _, bound = local.rpartition(":")[0].partition("%")
    if not peer.endswith(":*"):
        return f"connected to {peer} at {local} and does not take packets from {packet.source}"
    if bound and bound != device:
        return f"bound to the device {bound}, and the packet came through {device}"
    if address == "[::]":
        return f"bound at {local}, for IPv6 only"
    if address not in ("*", "0.0.0.0") and address != str(packet.destination):  # noqa: S104
        return f"bound at {local} and does not take packets for {packet.destination}"
    return ""
