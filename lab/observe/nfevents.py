"""The tracer's ear at netfilter, inside the lab: which rules packets met, which connections."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.kernel import nfnetlink, process
from lab.kernel.netns import NetworkNamespace
from lab.observe.rules import OWN_TABLE, parse_ruleset, tracing_rules
from lab.waiting import eventually

_MOST = 50_000
_POLICIES = ("ip", "-4", "xfrm", "policy")
_LIST = ("nft", "-a", "list", "ruleset")
_SAVE = ("iptables-legacy-save", "-c")
# of this thread: /proc/net is the main thread's, which never enters a namespace
_LEGACY_TABLES = Path("/proc/thread-self/net/ip_tables_names")
_LISTED_AGAIN_NS = 500_000_000
_ARMED_S = 1.0


class NetfilterEar:
    """Listens in every namespace; asks for the trace of rules only where there are rules.

    Args:
        namespaces: of the lab, by name; those without IP hooks are left out by the caller.
    """

    def __init__(self, namespaces: dict[str, NetworkNamespace]) -> None:
        self.stack = ExitStack()
        self.asking = ExitStack()
        self.spaces = {space.inode: space for space in namespaces.values()}
        self.names = {space.inode: name for name, space in namespaces.items()}
        self.events: dict[int, nfnetlink.NetfilterEvents] = {}
        self.changes: dict[int, nfnetlink.RuleChanges] = {}
        self.armed: tuple[int, int] | None = None
        self.asked: set[int] = set()
        self.late: list[tuple[str, int, int]] = []
        self.looked_ns = 0
        self.told: list[tuple[int, int, bytes]] = []
        self.rulesets: dict[int, list[str]] = {}
        self.counted: dict[int, str] = {}
        self.refused: list[str] = []
        self.listed_ns = 0
        self.dropped = 0
        for inode, space in self.spaces.items():
            with space.entered():
                try:
                    events = nfnetlink.NetfilterEvents()
                    self.stack.callback(events.close)
                    changes = nfnetlink.RuleChanges()
                    self.stack.callback(changes.close)
                except LabError as error:
                    self.refused.append(error.message)
                    return
                self.events[inode], self.changes[inode] = events, changes

    def arm(self, *, port: int = 0, protocol: int = 0) -> None:
        """Let the kernel trace rules for packets of a flow; 0 means any."""
        self.disarm()
        self.counted.clear()
        self.armed = (port, protocol)
        for inode, space in self.spaces.items():
            with space.entered():
                if (counts := _legacy_counts()) is not None:
                    self.counted[inode] = counts
                self._ask_if_needed(inode)
        self.looked_ns = time.monotonic_ns()

    def _ask_if_needed(self, inode: int) -> None:
        """Ask for the trace of the rules here, in the namespace entered, if it has any."""
        # without anybody's rules our own chain would be what makes the packet meet a hook
        if self.armed and any(not name.startswith(OWN_TABLE) for _, name in nfnetlink.tables()):
            try:
                self._ask(inode, *self.armed)
                self.asked.add(inode)
            except LabError as error:
                self.refused.append(f"netfilter rules: {error.message}")
        if (changes := self.changes.get(inode)) is not None:
            changes.came()  # what was there before, and our own

    def _look(self) -> None:
        """Ask also where somebody made the first rules since: from now on they are traced."""
        since, self.looked_ns = self.looked_ns, time.monotonic_ns()
        for inode, changes in self.changes.items():
            if self.armed and inode not in self.asked and changes.came():
                with self.spaces[inode].entered():
                    self._ask_if_needed(inode)
                if inode in self.asked:
                    self.late.append((self.names[inode], since, time.monotonic_ns()))

    def _ask(self, inode: int, port: int, protocol: int) -> None:
        text = self._list(inode)
        bases = parse_ruleset(text).bases.values()
        devices = sorted({device for base in bases for device in base.devices})
        rules = tracing_rules(port, protocol, tuple(devices))
        # `flags owner`: the tables live exactly as long as the nft that made them
        child = process.running(["nft", "-i"], feed=rules)
        self.asking.enter_context(child)
        # nft does not say when it has taken in what it was fed
        eventually(
            lambda: any(name == OWN_TABLE for _, name in nfnetlink.tables()),
            within_s=_ARMED_S,
            what="the tracing rule",
        )

    def _list(self, inode: int) -> str:
        text = process.run(_LIST).stdout
        # older lists are kept: the packet may have met a rule that is gone by now
        known = self.rulesets.setdefault(inode, [])
        if text not in known:
            known.append(text)
        return text

    def disarm(self) -> None:
        """Take the tracing rules away again."""
        self.armed = None
        self.asked.clear()
        self.late.clear()
        self.asking.close()

    def drain(self) -> None:
        """Take what came, and have an eye on namespaces that had no rules."""
        self._look()
        for inode, events in self.events.items():
            for data in events.take():
                if len(self.told) < _MOST:
                    self.told.append((inode, time.monotonic_ns(), data))
                else:
                    self.dropped += 1

    def policies(self, inodes: list[int]) -> list[list[Any]]:
        """Return [inode, text of ``ip xfrm policy``] of these namespaces."""
        found: list[list[Any]] = []
        for inode in inodes:
            if inode in self.spaces:
                with self.spaces[inode].entered():
                    found.append([inode, process.run(_POLICIES, check=False).stdout])
        return found

    def legacy(self) -> list[list[Any]]:
        """Return [inode, counts when armed, counts now] where iptables-legacy has rules."""
        found: list[list[Any]] = []
        for inode, before in self.counted.items():
            with self.spaces[inode].entered():
                found.append([inode, before, _legacy_counts() or ""])
        return found

    @property
    def lost(self) -> int:
        """Events that the kernel or this process could not keep."""
        return self.dropped + sum(events.lost for events in self.events.values())

    def hand_over(self) -> dict[str, Any]:
        """Return what came since the last call, and the rules it speaks of, as JSON values."""
        self.drain()
        told, self.told = self.told, []
        # rules may have changed since; but to list them starts a process in every namespace
        if told and time.monotonic_ns() - self.listed_ns > _LISTED_AGAIN_NS:
            self.listed_ns = time.monotonic_ns()
            for inode in {inode for inode, _, _ in told} & self.rulesets.keys():
                with self.spaces[inode].entered():
                    self._list(inode)
        return {
            "late": list(map(list, self.late)),
            "events": [[inode, ns, data.hex()] for inode, ns, data in told],
            "rulesets": [[inode, texts] for inode, texts in self.rulesets.items()] if told else [],
        }

    def close(self) -> None:
        """Take the tracing rules away and listen no longer."""
        self.asking.close()
        self.stack.close()


def _legacy_counts() -> str | None:
    """Rules of iptables-legacy here with their counts, None if it has no tables."""
    try:
        tables = _LEGACY_TABLES.read_text().split()
    except OSError:
        return None
    if not tables or process.find(_SAVE[0]) is None:
        return None
    return process.run(_SAVE, check=False).stdout
