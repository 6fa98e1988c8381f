"""Frames that the bridge between the machines gives to the wrong one of them."""

from __future__ import annotations

import json
from dataclasses import replace

from lab.observe.misled import Misled
from lab.observe.why import Diagnosis
from lab.plan.inventory import BRIDGE, UNDERLAY, WORLD
from lab.trace import Hop

_MAC_BYTES = 6


class Bridged(Misled):
    """Rules about the underlay's switch.

    Args:
        lab: it was lost in.
        recording: of it.
        answer: what the trace alone says.
        sender: where it was sent.
    """

    def wrong_port(self) -> Diagnosis | None:
        """The bridge believes a machine behind a port where it is not."""
        hop = self.answer.hop
        mac = self._receiver(hop) if hop is not None else ""
        owner = self._owner(mac)
        if hop is None or not owner or hop.namespace not in (UNDERLAY, *self._machines()):
            return None
        # it got there, or the bridge kept it for a reason of its own
        if hop.namespace == owner or self.answer.reason not in ("OTHERHOST", "NOT_SPECIFIED"):
            return None
        port, state = self._believed(mac)
        if not port or port == owner:
            return None
        lost = "the answer was lost, " if self.is_answer else ""
        end = "and gave it to nobody, for it came from there" if hop.namespace == UNDERLAY else (
            f"and {port} got what was for {owner}"
        )  # fmt: skip
        return replace(
            self.answer,
            known=True,
            where=f"{lost}on the way to {owner}, in {UNDERLAY}/{BRIDGE}",
            cause=f"the bridge believes {owner} ({mac}) behind the port {port}, {end}",
            entry=f"fdb {mac} dev {port} master {BRIDGE} {state}".rstrip(),
            change=f"Correct the entry there: bridge fdb replace {mac} dev {owner} master static.",
        )

    def _machines(self) -> tuple[str, ...]:
        return (*(node.name for node in self.lab.facts.nodes), WORLD)

    def _receiver(self, end: Hop) -> str:
        """Return the address that the frame was for when the underlay had it; empty if unseen."""
        trace = self.answer.trace
        seen = [
            hop
            for hop in (trace.taken if trace else ())
            if hop.link_layer == "ethernet" and hop.before and hop.ns <= end.ns
            and hop.namespace in (UNDERLAY, *self._machines())
        ]  # fmt: skip
        return seen[-1].before[:_MAC_BYTES].hex(":") if seen and seen[-1].before else ""

    def _owner(self, mac: str) -> str:
        """Return the machine that has an address in the underlay."""
        for node in self.lab.facts.nodes:
            if node.mac == mac:
                return node.name
        own = self.run(WORLD, "cat", "/sys/class/net/eth0/address")[1].strip()
        return WORLD if mac and own == mac else ""

    def _believed(self, mac: str) -> tuple[str, str]:
        """Return the port that the bridge knows for an address, and whether for good."""
        code, text, _ = self.run(UNDERLAY, "bridge", "-j", "fdb", "show", "br", BRIDGE)
        rows = json.loads(text) if not code and text.strip() else []
        known = [row for row in rows if row["mac"] == mac and row.get("master") == BRIDGE]
        return (known[0]["ifname"], known[0].get("state", "")) if known else ("", "")
