"""What the machines of a lab say of themselves now: devices, routes, sockets, settings, maps."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lab.runtime.live import Lab

# ENETUNREACH without any route; else errors of fib_props[] (net/ipv4/fib_semantics.c)
_ROUTES = {
    "Network is unreachable": ("has no route", "Add one there: ip route."),
    "No route to host": (
        "has an `unreachable` route", "Remove it there: ip route show type unreachable.",
    ),
    "Permission denied": (
        "has a `prohibit` route", "Remove it there: ip route show type prohibit.",
    ),
    "Invalid argument": (
        "has a `blackhole` route", "Remove it there: ip route show type blackhole.",
    ),
}  # fmt: skip
"""What `ip route get` says where a packet cannot go: state in words, remedy."""


@dataclass(frozen=True, slots=True)
class Link:
    """A device as its namespace describes it now."""

    place: str
    device: str
    up: bool
    mtu: int


class Machines:
    """Questions to the machines of a lab.

    Args:
        lab: must be up.
    """

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    def run(self, place: str, *argv: str) -> tuple[int, str, str]:
        """Run a command; return its code, output and complaints."""
        done = self.lab.place(place).run(argv)
        return done.returncode, done.stdout, done.stderr

    def link(self, place: str, device: str) -> Link | None:
        """Return a device as its namespace describes it, None if there is none."""
        if not place or not device:
            return None
        code, text, _ = self.run(place, "ip", "-j", "link", "show", "dev", device)
        if code:
            return None
        (known,) = json.loads(text)
        return Link(place, device, "UP" in known["flags"], known["mtu"])

    def peer(self, place: str, device: str) -> Link | None:
        """Return the other end of a cable of the lab."""
        nodes = {node.name for node in self.lab.facts.nodes}
        for pod in self.lab.facts.pods:
            if (place, device) == (pod.netns, "eth0"):
                return self.link(pod.node, pod.lxc)
            if (place, device) == (pod.node, pod.lxc):
                return self.link(pod.netns, "eth0")
        if place in nodes and device == "eth0":
            return self.link("underlay", place)
        if place == "underlay" and device in nodes:
            return self.link(device, "eth0")
        return None

    def no_way(self, place: str, address: str) -> tuple[str, str] | None:
        """Return what keeps a place from sending to an address, None if nothing does."""
        code, _, said = self.run(place, "ip", "route", "get", address)
        if not code:
            return None
        found = next((words for text, words in _ROUTES.items() if text in said), None)
        return found and (self._ruled_out(place, found) or found)

    def _ruled_out(self, place: str, found: tuple[str, str]) -> tuple[str, str] | None:
        """Name the rule of policy routing, where no route is of the kind that was met."""
        kind = re.search(r"`(\w+)`", found[0])
        if kind is None:
            return None
        routes = self.run(place, "ip", "route", "show", "table", "all", "type", kind[1])[1]
        rules = [
            line for line in self.run(place, "ip", "rule", "show")[1].splitlines()
            if line.split()[-1] == kind[1]
        ]  # fmt: skip
        # with such a route, or several rules, nobody knows which of them applied
        if routes.strip() or len(rules) != 1:
            return None
        number, _, text = rules[0].partition(":")
        return f"has the rule `{text.strip()}`, which applies", (
            f"Remove it there: ip rule del pref {number}."
        )

    def endpoint(self, node: str, address: str) -> str:
        """Return the MAC address that a node's datapath knows for a pod, empty for none."""
        with self.lab.node(node).map("cilium_lxc") as known:
            found = [str(value.mac) for key, value in known.items() if str(key.ip4) == address]
        return found[0] if found else ""

    def has_agent(self) -> bool:
        """Tell whether an agent is there to be asked."""
        return self.lab.topology.options.datapath and self.lab.agent.running

    def owned(self, address: str) -> bool:
        """Tell whether the plan gave an address to somebody."""
        facts = self.lab.facts
        known = {str(facts.gateway), str(facts.world_client)}
        known |= {str(one) for node in facts.nodes for one in (node.address, node.router)}
        return address in known | {str(pod.address) for pod in facts.pods}

    def sockets(self, place: str, protocol: str, port: int) -> list[list[str]]:
        """Return ``ss``'s columns of the sockets with a local port: state, queues, addresses."""
        which = "-Hnlt" if protocol == "tcp" else "-Hnau"
        _, text, _ = self.run(place, "ss", which, "sport", "=", f":{port}")
        return [line.split() for line in text.splitlines()]

    def full(self, place: str, port: int) -> str:
        """Say in words that the accept queue of a port is full; empty if it is not."""
        for _, waiting, limit, *_ in self.sockets(place, "tcp", port):
            # as sk_acceptq_is_full(): one connection more than the backlog fits
            if int(waiting) > int(limit):
                return f"has a full accept queue on port {port} ({waiting} wait)"
        return ""

    def ignores_echo(self, place: str) -> bool:
        """Tell whether echo requests are ignored by setting."""
        return self.run(place, "sysctl", "-n", "net.ipv4.icmp_echo_ignore_all")[1].strip() == "1"

    def blocked_out(self, place: str) -> bool:
        """Tell whether an IPsec policy forbids sending."""
        _, text, _ = self.run(place, "ip", "xfrm", "policy", "list", "dir", "out")
        return "action block" in text
