"""Rules of iptables-legacy: the kernel traces none of them, but each counts its packets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from lab.trace import Hop, Met

_HOOKS = {
    "PREROUTING": "nf_prerouting",
    "INPUT": "nf_input",
    "FORWARD": "nf_forward",
    "OUTPUT": "nf_output",
    "POSTROUTING": "nf_postrouting",
}
_RULE = re.compile(r"\[(\d+):\d+\] -A (\S+) (.*)")
_TARGET = re.compile(r"-j (\S+)")
_POLICY = re.compile(r":(\S+) (ACCEPT|DROP) \[(\d+):\d+\]")
_ENDS = frozenset({"drop", "reject"})

Counted = Mapping[tuple[str, str, str, int], int]
"""(table, chain, rule as text, how many of the same before it) -> packets."""


def parse_counts(text: str) -> dict[tuple[str, str, str, int], int]:
    """Return the counts in what ``iptables-legacy-save -c`` printed; a policy is ``-P TARGET``."""
    found: dict[tuple[str, str, str, int], int] = {}
    table = ""
    for line in text.splitlines():
        if line.startswith("*"):
            table = line[1:]
            continue
        if (policy := _POLICY.match(line)) is not None:
            chain, rule, count = policy[1], f"-P {policy[2]}", policy[3]
        elif (match := _RULE.match(line)) is not None:
            count, chain, rule = match.groups()
        else:
            continue
        # equal rules in one chain are told apart by their order
        number = 0
        while (table, chain, rule, number) in found:
            number += 1
        found[table, chain, rule, number] = int(count)
    return found


def add_legacy(lines: list[list[Hop]], namespace: str, before: Counted, after: Counted) -> None:
    """Name the rules that counted exactly the packets seen in their hook.

    A rule that ends packets must have counted those dropped there, any other one all that were
    seen; where the numbers differ others' packets are among them, and nothing is claimed.

    Args:
        lines: of all packets, changed in place.
        namespace: in which the rules are.
        before: counts when the recording began.
        after: counts at its end.
    """
    for (table, chain, rule, number), count in after.items():
        moved = count - before.get((table, chain, rule, number), 0)
        hook = _HOOKS.get(chain)
        if moved <= 0 or hook is None:
            continue
        found = _TARGET.search(rule) or re.match(r"-P (\S+)", rule)
        verdict = found[1].lower() if found else ""
        here = [
            (packet, index)
            for packet, hops in enumerate(lines)
            for index, hop in enumerate(hops)
            if hop.taken and hop.hook == hook and hop.namespace == namespace
            and (hop.dropped or verdict not in _ENDS)
        ]  # fmt: skip
        if len(here) != moved:
            continue
        met = Met(
            kind="policy" if rule.startswith("-P") else "rule",
            name=f"iptables-legacy {table} {chain}",
            text=rule,
            verdict="drop" if verdict in _ENDS else verdict,
            source="counter",
        )
        for packet, index in here:
            hop = lines[packet][index]
            lines[packet][index] = replace(hop, met=(*hop.met, met))
