"""The program at both ends of a wire: logs every segment, and can lose exactly the n-th.

It is the whole impairment where nothing has to wait (drop and duplicate, on a plain veth pair),
and only the recorder where the TAP wire impairs.
"""

from __future__ import annotations

import struct
from contextlib import ExitStack

from lab.datapath.build import SOURCES, build
from lab.errors import KernelError, UnsupportedError
from lab.kernel.bpf import Loaded, Program, ProgramType, load_object
from lab.kernel.bpfattach import Direction, attach_tc
from lab.kernel.netns import NetworkNamespace
from lab.wire.log import MAX_SEGMENTS, Observation, read_log
from lab.wire.rules import Drop, Duplicate, Kind, PacketRule, Script, Way, describe

_RULE = struct.Struct("<IBBHIIII16QII")
_MAX_RULES = 8
_MAX_ORDINAL = 16 * 64
# their order is that of enum kind in impair.c
_KINDS = tuple(Kind)
_FATES = {Drop: 1, Duplicate: 2}
_MAX_COPIES = 8
_SEEN_OFFSET = _RULE.size - 8
_ONLY_ENTRY = struct.pack("<I", 0)


class IngressPrograms:
    """The loaded programs and their maps; they go when closed and when the devices go."""

    def __init__(self) -> None:
        (path,) = build([SOURCES / "lessons" / "impair.c"])
        self._stack = ExitStack()
        self._loaded: Loaded = self._stack.enter_context(
            load_object(path, default_type=ProgramType.SCHED_CLS)
        )
        self._rules: tuple[PacketRule, ...] = ()

    @property
    def received(self) -> Program:
        """The program that judges what arrives."""
        return self._loaded.programs["impair_received"]

    def attach(self, namespace: NetworkNamespace, ifindex: int) -> None:
        """Log what leaves and judge what arrives at one device.

        Raises:
            KernelError: the device does not exist.
        """
        with namespace.entered():
            programs = self._loaded.programs
            attach_tc(programs["impair_sent"], ifindex, Direction.EGRESS)
            attach_tc(programs["impair_received"], ifindex, Direction.INGRESS)

    def change(self, script: Script, receivers: dict[Way, int]) -> None:
        """Judge by ``script`` from now on.

        Args:
            script: drops and duplicates only.
            receivers: interface index of the receiving device of each direction.

        Raises:
            UnsupportedError: a rule needs the TAP wire.
        """
        check_supported(script)
        self._rules = script.packet_rules
        table = self._loaded.maps["rules"]
        for slot in range(_MAX_RULES):
            # slots that are left over are cleared: rules of an earlier, longer script must not go
            # on
            value = bytes(_RULE.size)
            if slot < len(self._rules):
                rule = self._rules[slot]
                value = encode_rule(rule, receivers[rule.match.way])
            table.update(struct.pack("<I", slot), value)

    def unmet(self) -> tuple[str, ...]:
        """Describe the rules that named a packet which has not come (yet)."""
        missing = []
        for slot, rule in enumerate(self._rules):
            raw = self._loaded.maps["rules"].lookup(struct.pack("<I", slot)) or bytes(_RULE.size)
            seen, acted = struct.unpack_from("<II", raw, _SEEN_OFFSET)
            if any(n > seen for n in rule.match.nth) or (not rule.match.nth and not acted):
                missing.append(f"{describe(rule)}: {seen} such packet{'s' * (seen != 1)} came")
        return tuple(missing)

    def count(self) -> int:
        """Return how many observations the log has."""
        raw = self._loaded.maps["observed"].lookup(_ONLY_ENTRY)
        return int.from_bytes(raw or b"", "little")

    def observations(self) -> tuple[Observation, ...]:
        """Return everything both ends saw, in the kernel's order.

        Raises:
            KernelError: the log was too small for the experiment.
        """
        count = self.count()
        if count > MAX_SEGMENTS:
            raise KernelError(
                f"{count} packets passed, the segment log holds {MAX_SEGMENTS}",
                hint="send less in one experiment",
            )
        return tuple(read_log(self._loaded.maps["segments"].fd, count))

    def close(self) -> None:
        """Let go of programs and maps; what is attached stays until its device goes."""
        self._stack.close()


def check_supported(script: Script) -> None:
    """Refuse what a tc program cannot do exactly.

    Raises:
        UnsupportedError: names the rule and what can carry it out.
    """
    reason = ""
    if len(script.packet_rules) > _MAX_RULES:
        reason = f"more than {_MAX_RULES} rules"
    for rule in script.rules:
        if not isinstance(rule, Drop | Duplicate):
            reason = f"{describe(rule)}: a tc program cannot hold or change a packet in time"
        elif max(rule.match.nth, default=1) > _MAX_ORDINAL:
            reason = f"{describe(rule)}: ordinals end at {_MAX_ORDINAL}"
        elif isinstance(rule, Duplicate) and rule.copies > _MAX_COPIES:
            reason = f"{describe(rule)}: at most {_MAX_COPIES} copies"
    if reason:
        raise UnsupportedError(
            f"the receiver's ingress cannot do this: {reason}",
            hint="join the hosts by the TAP wire",
        )


def encode_rule(rule: PacketRule, ifindex: int) -> bytes:
    """Return the ``struct rule`` of a drop or duplicate at the device ``ifindex``."""
    match = rule.match
    # bit n-1 of a map of 1024 bits, so that the program needs no loop over ordinals
    bits = sum(1 << (n - 1) for n in match.nth)
    words = [(bits >> (64 * word)) & 0xFFFFFFFFFFFFFFFF for word in range(16)]
    return _RULE.pack(
        ifindex,
        _FATES[type(rule)],
        _KINDS.index(match.kind),
        rule.copies if isinstance(rule, Duplicate) else 0,
        match.first_byte is not None,
        (match.first_byte or 0) & 0xFFFFFFFF,
        match.longer_than_bytes,
        not match.nth,
        *words,
        0,
        0,
    )
