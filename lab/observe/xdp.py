"""What XDP does with a packet, in the driver (step 2) and in the stack (step 6)."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from lab.observe.driver import Driver
from lab.observe.drops import Drop
from lab.observe.records import Config, Kind, Record
from lab.observe.walk import Walk
from lab.trace import Evidence, Side, Step

XDP_COPY = "skb_pp_cow_data"
"""Where the kernel copies a buffer into a page of the driver's own, for a native program."""
XDP = {
    Kind.XDP_EXCEPTION: ("aborted", "on_xdp_exception"),
    Kind.XDP_REDIRECT: ("redirect", "on_xdp_redirect"),
    Kind.XDP_TX: ("tx", "on_xdp_bulk_tx"),
    Kind.XDP_TRANSMIT: ("redirect", "on_xdp_devmap_xmit"),
}
"""Verdict and probe for each kind of record that tells what became of a program's answer."""
_FAILED = {Kind.XDP_TX: "sending back", Kind.XDP_REDIRECT: "redirecting",
           Kind.XDP_TRANSMIT: "redirecting"}  # fmt: skip
# BPF_MAP_TYPE_DEVMAP, CPUMAP, XSKMAP, DEVMAP_HASH (include/uapi/linux/bpf.h)
_MAPS = {14: "devmap", 16: "cpumap", 17: "xskmap", 25: "devmap hash"}
_DRIVER, _GENERIC = (Step.XDP_DRIVER, "xdp"), (Step.GENERIC_XDP, "generic_xdp")


NOT_TAKEN = "NOT_TAKEN"
"""What stands for a reason where a driver took fewer frames than it was given and says no more."""


def errno_name(number: int) -> str:
    """Return the word for a negative error number; 95 is ``ENOTSUP``, in C ``EOPNOTSUPP`` too."""
    return errno.errorcode.get(-number, str(number))


def _target(record: Record) -> str:
    """Where a redirect goes, in words: the tracepoint names the map and the place in it."""
    kind, place = record.arg >> 32, record.arg & 0xFFFFFFFF
    if not kind:
        return f"to device {place}"
    if _MAPS.get(kind) == "cpumap":
        return f"to processor {place}, by cpumap {record.hash}"
    return f"by place {place} of {_MAPS.get(kind, f'map type {kind}')} {record.hash}"


class Xdp(Driver):
    """Lines about XDP programs and what became of their answers."""

    def _storage(self, record: Record, walk: Walk) -> None:
        """Before generic XDP runs, a buffer without enough room in front gets other storage."""
        generic = walk.config & Config.XDP_GENERIC and not walk.taken(Step.GENERIC_XDP)
        if generic and walk.head and record.head and record.head != walk.head:
            hop = self.add(
                record, walk, "generic_xdp", "on_receive_skb", step=Step.GENERIC_XDP,
                evidence=Evidence.COUNTER, verdict="pass",
                reason="the buffer's storage was exchanged since step 5, as the program needs it",
            )  # fmt: skip
            walk.hops[-1] = replace(hop, program=walk.xdp)

    def _built(self, record: Record, walk: Walk) -> None:
        """What XDP sent on was a frame without a buffer: the one it has now was built here."""
        before = self.walks[-2] if len(self.walks) > 1 else None
        index = before.last("xdp") if before is not None else None
        if before is None or index is None or walk.taken(Step.CLEAN_RX):
            return
        left = before.hops[index].verdict in ("redirect", "tx")
        # with the same buffer it was generic XDP, which keeps it
        if left and all(hop.skb != record.skb for hop in before.hops):
            self.add(
                record, walk, "clean_rx", "on_gro_receive", step=Step.CLEAN_RX,
                reason="the frame that XDP sent on got a buffer of its own here",
            )  # fmt: skip

    def _copied_in_driver(self, record: Record, stack: tuple[str, ...]) -> bool:
        """Whether a buffer that ended nobody says where (Linux 6.1) was copied for a program.

        Its end inside the driver's XDP function may also be the program's answer, a frame: only
        a copy is met again, in another buffer, at the same device.
        """
        return Step.XDP_DRIVER.function in stack and any(
            later.ns > record.ns
            and later.skb not in (0, record.skb)
            and (later.netns, later.ifindex) == (record.netns, record.ifindex)
            for later in self.journey.records
        )

    def _copied_for_xdp(
        self, record: Record, stack: tuple[str, ...], function: str = XDP_COPY
    ) -> None:
        """Before a native program runs on veth, the sender's buffer is copied and let go."""
        walk = self.walk(record, Side.RECEIVE)
        self._poll(record, walk, stack)
        self.add(
            record, walk, "clean_rx", "on_consume", step=Step.CLEAN_RX,
            reason=f"{function} copied the buffer into a page of the driver's own",
        )  # fmt: skip
        if (entered := Step.XDP_DRIVER.function) in stack:
            hop = self.add(
                record, walk, "xdp", "on_consume", step=Step.XDP_DRIVER, evidence=Evidence.STACK,
                reason=f"{entered} is on the call stack: the program runs next",
            )  # fmt: skip
            walk.hops[-1] = replace(hop, program=walk.xdp)

    def _xdp(self, record: Record) -> None:
        """What the kernel made of the program's answer; reported behind the program."""
        verdict, probe = XDP[record.kind]
        walk = self._asked(record)
        step, hook = _GENERIC if walk.generic else _DRIVER
        reason = f"{probe.removeprefix('on_')} told so"
        # a bulk tells of a whole poll: frames sent above bit 32, frames given up below
        bulk = record.kind in (Kind.XDP_TX, Kind.XDP_TRANSMIT)
        given_up = record.arg & 0xFFFFFFFF if bulk else 0
        if record.kind is Kind.XDP_REDIRECT:
            reason = f"{reason}: {_target(record)}"
        if bulk and given_up and record.arg >> 32:
            reason = f"{reason}: it gave up {given_up} of the poll's frames, not saying which"
        elif given_up or (record.kind is Kind.XDP_REDIRECT and record.verdict):
            verdict = "drop"
            reason = f"{_FAILED[record.kind]} failed ({_failure(record)})"
            walk.drop = Drop(step, hook)
        index = walk.last(hook)
        if index is None:
            # a kernel that runs the program on the sender's own buffer shows nothing before this
            self.add(record, walk, hook, probe, step=step)
            index = len(walk.hops) - 1
        hop = walk.hops[index]
        walk.hops[index] = replace(
            hop, verdict=verdict, evidence=Evidence.TRACEPOINT, object=self.names.object(probe),
            reason=reason, program=hop.program or walk.xdp,
            drop_reason=_failure(record) if verdict == "drop" else "",
        )  # fmt: skip

    def _asked(self, record: Record) -> Walk:
        """Return the walk in which the program was asked that this record tells of."""
        # generic XDP hands the packet on before it tells: it may be elsewhere by now
        here = (walk for walk in reversed(self.walks) if walk.side is Side.RECEIVE
                and (walk.netns, walk.ifindex) == (record.netns, record.ifindex)
                and walk.generic)  # fmt: skip
        return next(here, None) or self.walk(record, Side.RECEIVE)

    def _again(self, record: Record, walk: Walk) -> Walk:
        """A second reception of the device: another processor's, to which XDP handed the packet."""
        if walk.taken(Step.RECEIVE_SKB) and (
            record.kind is Kind.GRO_RECEIVE
            or (record.kind is Kind.RECEIVE_SKB and record.config & Config.REDIRECTED)
        ):
            return self._another(record, Side.RECEIVE)
        return walk

    def _sent_back(self, walks: Sequence[Walk]) -> None:
        """Generic XDP_TX sends a packet without a word: it comes in at the other end unsent."""
        for walk, following in pairwise(walks):
            silent = walk.generic and walk.last("generic_xdp") is None and walk.drop is None
            last = max((hop.step for hop in walk.hops if hop.step), default=None)
            if not silent or last is not Step.RECEIVE_SKB or following.side is not Side.RECEIVE:
                continue
            other = walk.head != following.head and bool(following.head)
            self.add_silent(walk, other)

    def add_silent(self, walk: Walk, exchanged: bool) -> None:
        """Append the line of generic XDP_TX, behind the reception in which it was answered."""
        seen = walk.hops[walk.last("receive_skb") or 0]
        walk.hops.append(
            replace(
                seen,
                step=Step.GENERIC_XDP,
                hook="generic_xdp",
                verdict="tx",
                evidence=Evidence.COUNTER if exchanged else Evidence.IMPLIED,
                reason="it came in at the other end without having been sent"
                + (", in other storage" if exchanged else ""),
                program=walk.xdp,
                stack=(),
            )  # fmt: skip
        )


def _failure(record: Record) -> str:
    # a driver that takes fewer frames than it was given need not say why
    return errno_name(record.verdict) if record.verdict else NOT_TAKEN
