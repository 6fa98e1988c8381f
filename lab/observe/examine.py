"""What the lab's machines say of themselves once a packet is lost: devices, routes, settings.

A trace proves where a packet ended. Why it ended there is often the state of a device that the
trace does not show. Each rule looks at that state and answers only if it explains this very end.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

from lab.errors import LabError
from lab.observe.addressed import outside, redirecting
from lab.observe.bridged import Bridged
from lab.observe.misled import TUNNEL
from lab.observe.why import Diagnosis, change_of
from lab.plan.inventory import WORLD
from lab.trace import Hop, Step

_FRAME_BYTES = 14
_IDENTITY = re.compile(r"^ingress identity (\d+) ")


class Examiner(Bridged):
    """Rules about one lost packet.

    Args:
        lab: it was lost in.
        recording: of it.
        answer: what the trace alone says.
        sender: where it was sent.
    """

    def examine(self) -> Diagnosis:
        """Return a better answer, or the same."""
        rules: tuple[Callable[[], Diagnosis | None], ...] = (
            self.wrong_port,
            self._flooded,
            self._not_attached,
            self._device,
            self._address,
            self._route,
            self.not_turned_back,
            self.service,
            self.nobody,
            self._lost_endpoint,
            self._stranger,
            self.turned_away,
            self.tunnel,
            self.bound_elsewhere,
            self.other_port,
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
        packet = outside(trace, hop)
        if self.answer.reason != "OTHERHOST" or trace is None or packet is None:
            return None
        owner = self._behind(packet.destination)
        if owner is None or hop is None or hop.node == owner:
            return None
        meant = next((drop for drop in self.recording.drops if drop.namespace == owner), None)
        if meant is not None:
            where = self.answer.where.replace(_spot(hop), _spot(meant))
            return replace(self.answer, where=where, hop=meant)
        for link in (self.link(owner, "eth0"), self.link("underlay", owner)):
            if link is not None and not link.up:
                effect = f"the bridge knows nobody with {owner}'s MAC address"
                return self.down(link, effect, where=f"on the way to {owner}")
        return Diagnosis(
            known=False,
            where=f"on the way to {owner}",
            cause=f"the bridge gave the frame to everybody, and {owner} was not seen to take it",
            change=f"Look at {owner}'s eth0 and its port of the bridge.",
            trace=trace,
        )

    def _behind(self, address: IPv4Address) -> str | None:
        """Return the machine of the underlay that a frame for an address goes to."""
        for node in self.lab.facts.nodes:
            if address == node.address or address in node.pod_cidr:
                return node.name
        # whatever is not theirs goes to the gateway, which is the world
        near = IPv4Network(self.lab.topology.underlay_cidr)
        return None if address in near and address != self.lab.facts.gateway else WORLD

    def _device(self) -> Diagnosis | None:
        """A device takes nothing while it or its other end is down, or what is too large for it."""
        hop = self.answer.hop
        # what the datapath drops, or a numbered step, is not the device's doing
        if hop is None or not hop.dropped or hop.program.startswith("cil_") or hop.step:
            return None
        if hop.drop_reason not in ("QDISC_DROP", "DEV_READY", "NOT_SPECIFIED", "DEV_HDR"):
            return None
        ends = [self.link(hop.namespace, hop.device), self.peer(hop.namespace, hop.device)]
        for link in filter(None, ends):
            if not link.up:
                return self.down(link, "it takes nothing")
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
        packet = outside(self.answer.trace, hop)
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
        if hop.device == TUNNEL or hop.device.startswith("lxc"):
            ways = ("tc", "filter", "show", "dev", hop.device, "ingress")
            if "cil_from_" in self.run(hop.namespace, *ways)[1]:
                return None
            return replace(
                self.answer,
                cause=f"no program of the datapath sits on ingress of {hop.device}: the frame was "
                "left to the stack, and it is for somebody else",
                entry="",
                change="Build the lab anew: lab down, lab up."
                if hop.device == TUNNEL
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

    def _stranger(self) -> Diagnosis | None:
        """The tunnel told an identity that no endpoint and no network of the lab has."""
        hop = self.answer.hop
        asked = [_IDENTITY.search(look.key) for look in hop.lookups] if hop is not None else []
        found = next((match for match in asked if match), None)
        tunnel = hop is not None and hop.program == "cil_from_overlay"
        if found is None or not tunnel or self.answer.reason != "POLICY":
            return None
        number = int(found[1])
        try:
            known = {identity.id for identity in self.lab.agent.identities()}
        except LabError:
            return None  # without an agent nobody can say who is known
        if number in known:
            return None
        return replace(
            self.answer,
            cause=f"the tunnel said identity {number}, which nobody here has, and no policy entry "
            "allows it",
            change="Look for who sends with that VNI: lab identity list shows the identities.",
        )

    def _lost_endpoint(self) -> Diagnosis | None:
        """The node's own pod is missing in the node's map of endpoints."""
        hop, packet = self.answer.hop, outside(self.answer.trace, self.answer.hop)
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

    def _route(self) -> Diagnosis | None:
        """A place on the way does not route the packet onwards."""
        hop = self.answer.hop
        packet = outside(self.answer.trace, hop)
        if hop is None or hop.step is not Step.IP_ROUTING and hop.hook != "route_output":
            return None
        if hop.drop_reason in ("IP_RPFILTER", "IP_LOCAL_SOURCE") or hop.program.startswith("cil_"):
            return None
        address = str(packet.destination) if packet else ""
        if hop.step is None:  # it asks for itself, with outer addresses that no line shows yet
            looked = (one for line in self._here(hop) for one in line.lookups)
            asked = [one.key for one in looked if one.map.startswith("route")]
            address = asked[-1] if asked else self._far_end(hop)
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
        if hop.step and (rule := redirecting(self._here(hop), hop)) is not None:
            return replace(
                self.answer,
                cause=f"{rule.name} ({rule.text}) sends it elsewhere, and {hop.namespace} does not "
                "forward it there",
                entry="",
                change=change_of(rule),
            )
        # the kernel asks for the setting of the device that received the packet
        setting = f"net.ipv4.conf.{hop.device}.forwarding"
        if hop.step and self.run(hop.namespace, "sysctl", "-n", setting)[1].strip() == "0":
            return replace(
                self.answer,
                known=True,
                cause=f"{hop.namespace} does not forward what is for others",
                change="Let it, there: sysctl net.ipv4.ip_forward=1.",
            )
        return None

    def _far_end(self, hop: Hop) -> str:
        """Return the node that a tunnel packet without a line of its own must be for."""
        nodes = self.lab.facts.nodes
        if self.answer.trace is None or hop.namespace not in {node.name for node in nodes}:
            return ""
        asked = IPv4Address(self.answer.trace.packet.destination)
        return next((str(n.address) for n in nodes if asked in n.pod_cidr), "")

    def _here(self, hop: Hop) -> list[Hop]:
        """Return the trace's lines in the namespace of one of them."""
        trace = self.answer.trace
        return [one for one in trace.taken if one.namespace == hop.namespace] if trace else []

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
        # the next hop is what the route's look-up answered, or on the link itself what was asked
        asked = {look_up.key for one in self._here(hop) for look_up in one.lookups}
        asked |= {
            w for one in self._here(hop) for k in one.lookups for w in (k.value or "").split()
        }
        silent = [address for address in silent if address in asked]
        # of several nobody knows which one this packet waits for
        if len(silent) != 1:
            return None
        owner = self.lab.facts.owner_of(IPv4Address(silent[0])) or ""
        ends = (
            self.peer(hop.namespace, hop.device),
            self.link(owner, "eth0"),
            self.link("underlay", owner),
        )
        for link in filter(None, ends):
            if not link.up:
                return self.down(link, f"nobody answers the ARP question for {silent[0]}")
        return replace(
            self.answer,
            known=True,
            cause=f"nobody answers the ARP question for {silent[0]}",
            entry="",
            change=f"Look for who should have {silent[0]}: ip neigh; is its device up?",
        )

    def _way_out(self) -> Diagnosis | None:
        """The sender's own system call failed."""
        if self.answer.hop is not None or self.recording.error in ("", "timeout"):
            return None
        place = self.lab.place(self.sender)
        # a pod's namespace is not called like the pod; a node's and the world's are
        device = self.link(getattr(getattr(place, "facts", None), "netns", self.sender), "eth0")
        if device is not None and not device.up:
            return self.down(device, "its routes are gone with it")
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
        packet = outside(trace, ends[-1]) if ends else None
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


def _spot(hop: Hop) -> str:
    return "/".join(filter(None, dict.fromkeys((hop.node, hop.namespace, hop.device))))
