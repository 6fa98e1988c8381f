"""Why a packet did not arrive: send it, follow it, answer in one paragraph.

A wrong cause is worse than none: what the trace does not prove is called unknown.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lab.observe.addressed import answers
from lab.observe.causes import DATAPATH, ERRNO, KERNEL, XDP, XDP_NOT_TAKEN, Cause
from lab.observe.checksum import spoiled
from lab.observe.drops import REDIRECTED
from lab.observe.recording import Recording, Shot, follow
from lab.observe.xdp import NOT_TAKEN
from lab.trace import Hop, Met, Side, Step, Trace

if TYPE_CHECKING:
    from lab.runtime.live import Lab


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """The answer to one question.

    Attributes:
        arrived: the packet (and, for TCP and ICMP, the answer) got through.
        known: the cause is proven by the trace.
        where: place and hook, in words; empty if it arrived.
        cause: one clause.
        entry: which program, rule, map entry or look-up decided; empty if none is known.
        change: what to do, an imperative sentence.
        reason: the kernel's or the datapath's own name of it.
        hop: the line that proves it.
        trace: of the packet concerned.
    """

    arrived: bool = False
    known: bool = True
    where: str = ""
    cause: str = ""
    entry: str = ""
    change: str = ""
    reason: str = ""
    hop: Hop | None = None
    trace: Trace | None = None

    @property
    def paragraph(self) -> str:
        """The answer as one paragraph."""
        if self.arrived:
            return "It arrived: nothing dropped the packet, and its receiver was woken."
        start = f"{self.where}: {self.cause}" if self.where else self.cause
        parts = [start[:1].upper() + start[1:]]
        if self.entry:
            parts.append(f"({self.entry})")
        if self.reason:
            parts.append(f"[{self.reason}]")
        sentence = " ".join(parts) + "."
        return f"{sentence} {self.change}".strip()


def why(lab: Lab, sender: str, receiver: str, shot: Shot) -> Diagnosis:
    """Send one packet and say why it does not arrive, or that it does.

    Args:
        lab: must be up.
        sender: pod, node or ``world``.
        receiver: the same, or an address (of a service, for example).
        shot: what to send; `Shot.listen` opens a receiver first.

    Raises:
        InputError: a name or protocol that does not exist.
    """
    from lab.observe.examine import Examiner

    recording = follow(lab, sender, receiver, shot, insist=False)
    answer = diagnose(recording, sender)
    return answer if answer.arrived else Examiner(lab, recording, answer, sender).examine()


def diagnose(recording: Recording, sender: str) -> Diagnosis:
    """Say why the first packet of a recording did not arrive, or its answer did not come back."""
    if recording.lost:
        return Diagnosis(
            known=False,
            cause="events were lost while the packet was followed: the cause is unknown",
            change="Ask again with less traffic beside it.",
        )  # fmt: skip
    if recording.packets and not recording.error:
        # the answer came; a late segment to a socket that is closed by then is nobody's loss
        return Diagnosis(arrived=True, trace=recording.packets[0])
    ordered = sorted(recording.packets, key=lambda trace: trace.hops[0].ns if trace.hops else 0)
    # a bridge gives a frame to bystanders too: what they do with it explains nothing but a flood
    for bystanders in (False, True):
        for trace in ordered:
            drops = [hop for hop in trace.drops if (hop.drop_reason == "OTHERHOST") == bystanders]
            if drops:
                return _of_answer(recording, _dropped(trace, drops[0]))
            if (reset := _answered(trace, "tcp_send_reset")) is not None:
                return _nobody(trace, reset)
            if (kept := _kept(trace)) is not None:
                return _of_answer(recording, kept)
    if not recording.packets:
        return _never_left(recording, sender)
    first = recording.packets[0]
    if first.delivered:
        return Diagnosis(arrived=True, trace=first)
    if recording.error in ERRNO:
        return _never_left(recording, sender)
    return _unknown(first)


def _of_answer(recording: Recording, answer: Diagnosis) -> Diagnosis:
    """Say so where it is the answer that was lost."""
    asked, lost = recording.packets[0], answer.trace
    if lost is None or not answers(lost, asked, recording.destination):
        return answer
    return replace(answer, where=f"the answer was lost, {answer.where}")


def _where(hop: Hop) -> str:
    place = "/".join(filter(None, dict.fromkeys((hop.node, hop.namespace, hop.device))))
    step = f"step {hop.step.number} {hop.hook}" if hop.step else hop.hook
    side = "receiving" if hop.side is Side.RECEIVE else "sending"
    return f"{side} at {place}, {step}"


def _dropped(trace: Trace, hop: Hop) -> Diagnosis:
    # from the most particular word to the most general: the kernel's reason comes last
    cause = DATAPATH.get(hop.drop_reason) if hop.program.startswith("cil_") else None
    cause = cause or _redirected(hop)
    cause = cause or (_by_xdp(hop) if hop.hook in ("xdp", "generic_xdp") else None)
    cause = cause or (spoiled(trace, hop) if hop.drop_reason.endswith("_CSUM") else None)
    cause = cause or _unencrypted(trace, hop)
    cause = cause or KERNEL.get(hop.drop_reason) or _by_place(hop)
    if cause is None:
        return Diagnosis(
            known=False,
            where=_where(hop),
            cause="the packet was dropped here, for a reason this program cannot explain",
            entry=hop.reason,
            reason=hop.drop_reason,
            change=f"Look at `lab explain {hop.drop_reason}` and at the ladder: lab trace.",
            hop=hop,
            trace=trace,
        )
    answer = _answered(trace, "icmp_send")
    if hop.hook == "ip_forward" and answer is not None and "time to live" in answer.reason:
        cause = _looped(trace, hop)
    told = f": {answer.namespace} {answer.reason}" if answer is not None and answer.reason else ""
    return Diagnosis(
        where=_where(hop),
        cause=f"{cause.what}{told}",
        entry=_entry(hop),
        change=_change(cause, hop),
        reason=hop.drop_reason,
        hop=hop,
        trace=trace,
    )


def _kept(trace: Trace) -> Diagnosis | None:
    """A classifier took the packet out of the stack: that is no drop to the kernel."""
    hop = trace.taken[-1] if trace.taken else None
    classified = hop is not None and (hop.program or hop.hook in ("tc_ingress", "tc_egress"))
    if hop is None or hop.verdict != "stolen" or not classified:
        return None
    side = "ingress" if hop.side is Side.RECEIVE else "egress"
    return Diagnosis(
        where=_where(hop),
        cause=f"{hop.program or 'a classifier'} kept the packet (TC_ACT_STOLEN, TC_ACT_QUEUED or "
        "TC_ACT_TRAP), and it was not seen again",
        entry=hop.reason,
        change=f"Look at the program: tc filter show dev {hop.device} {side}; bpftool net.",
        hop=hop,
        trace=trace,
    )


def _redirected(hop: Hop) -> Cause | None:
    """A program named a device that the kernel did not find."""
    if not hop.reason.endswith(REDIRECTED):
        return None
    program = hop.program or "a classifier"
    return Cause(
        f"{program} redirected it to an interface index that no device here has (or, by "
        "bpf_redirect_peer, to one whose other end takes nothing)",
        "Correct the map entry that names the index: lab bpf endpoint list; ip link."
        if program.startswith("cil_")
        else "Correct the program, or take it away: tc filter show dev DEVICE; ip link.",
    )


def _by_xdp(hop: Hop) -> Cause | None:
    """What became of the frame that a program sent on."""
    # before Linux 6.3 only the bulk that leaves later finds the other end without NAPI
    late = hop.reason.startswith("redirecting") and hop.drop_reason == "ENXIO"
    if hop.drop_reason == NOT_TAKEN:
        return XDP_NOT_TAKEN
    return XDP.get("ENOTSUP" if late else hop.drop_reason)


def _rule(hop: Hop) -> Met | None:
    """The netfilter rule, chain policy or IPsec policy that dropped the packet here."""
    # the last one: rules before it let the packet pass
    decided = (met for met in reversed(hop.met) if met.verdict in ("drop", "block"))
    unmet = (met for met in hop.met if met.kind == "xfrm" and hop.drop_reason == "XFRM_POLICY")
    return next(decided, None) or next(unmet, None)


def _change(cause: Cause, hop: Hop) -> str:
    rule = _rule(hop)
    if rule is not None and rule.kind in ("rule", "policy"):
        return change_of(rule)
    return cause.change.replace("DEVICE", hop.device).replace("DEV ", f"{hop.device} ")


def change_of(rule: Met) -> str:
    """Return how a netfilter rule, or a chain's policy, is changed with the tool that made it."""
    if rule.source == "counter":  # only rules of iptables-legacy are known by their counters
        tool, table, chain = rule.name.split()
        command = f"{tool} -t {table}"
        accept, policy = f"{command} -A {chain} ... -j ACCEPT", f": {command} -P {chain} ACCEPT"
        delete, show = f"{command} -D {chain} {rule.text}", f"{command} -S"
    else:
        accept, policy = f"nft add rule {rule.name} ... accept", "; nft list ruleset shows all"
        delete, show = f"nft delete rule {rule.name}", "nft list ruleset"
    if rule.kind == "policy":
        return f"Add a rule that accepts it: {accept}, or change the chain's policy{policy}."
    return f"Change that rule: {delete}; {show} shows all."


def _unencrypted(trace: Trace, hop: Hop) -> Cause | None:
    """A policy that the packet's selector met wants ESP, and nobody had encrypted the packet."""
    wanted = any(met.kind == "xfrm" and "wants proto esp" in met.text for met in hop.met)
    opened = any(one.verdict == "decrypted" for one in trace.at(namespace=hop.namespace))
    if hop.drop_reason != "XFRM_POLICY" or not wanted or opened:
        return None
    return Cause(
        "it came in clear, and an IPsec policy here wants it encrypted",
        "Encrypt it at the sender (ip xfrm state; ip xfrm policy), or take the policy here away.",
    )


_DISCARDED = Cause(
    "its route discards it: a blackhole route, or an IPsec policy that has no state for it",
    "Look there: ip route show type blackhole; ip xfrm policy; ip xfrm state.",
)


def _by_place(hop: Hop) -> Cause | None:
    """Causes that the place tells where the kernel gives no reason of its own."""
    # without probes of functions nothing tells whether IPsec gave it that route
    if hop.reason.endswith("dst_discard_out"):
        return _DISCARDED
    causes = {
        "xdp": KERNEL["XDP"],
        "generic_xdp": KERNEL["XDP"],
        "tc_ingress": KERNEL["TC_INGRESS"],
        "neighbour": KERNEL["NEIGH_FAILED"],
        "ip_forward": Cause(
            "it would have to be forwarded here, and may not",
            "Look at ip_forward, the TTL and the route behind it.",
        ),
        "dev_xmit": Cause(
            "the device could not send it: its other end is down or gone",
            "Set both ends up: ip link set DEV up.",
        ),
    }
    return causes.get(hop.hook)


def _looped(trace: Trace, hop: Hop) -> Cause:
    """The time to live ran out: because it was short, or because the packet went in circles."""
    known = DATAPATH["TTL_EXCEEDED"]
    rounds = sum(one.hook == "nf_forward" and one.namespace == hop.namespace for one in trace.taken)
    if rounds < 2:
        return known
    return Cause(
        f"its time to live ran out, after {hop.namespace} had forwarded it {rounds} times: it "
        "goes in circles",
        "Look at the routes of those it came by: lab trace; ip route get.",
    )


def _entry(hop: Hop) -> str:
    if (rule := _rule(hop)) is not None:
        return f"{rule.name}: {rule.text}" if rule.text else rule.name
    decided = [look_up for look_up in hop.lookups if look_up.map == "cilium_policy"]
    if decided:
        last = decided[-1]
        return f"{hop.program}, {last.map} {last.key}: {last.value or 'no entry'}"
    if hop.lookups and hop.program:
        last = hop.lookups[-1]
        return f"{hop.program}, last look-up {last.map} {last.key}: {last.value or 'no entry'}"
    return hop.program or hop.reason


def _answered(trace: Trace, hook: str) -> Hop | None:
    return next((hop for hop in trace.taken if hop.hook == hook), None)


def _nobody(trace: Trace, hop: Hop) -> Diagnosis:
    cause = KERNEL["NO_SOCKET"]
    return Diagnosis(
        where=_where(hop),
        cause=f"{cause.what}: TCP answered with a reset",
        change=cause.change,
        reason="NO_SOCKET",
        hop=hop,
        trace=trace,
    )


def _never_left(recording: Recording, sender: str) -> Diagnosis:
    cause = ERRNO.get(recording.error)
    trace = recording.packets[0] if recording.packets else None
    if cause is None:
        return Diagnosis(
            known=False,
            where=f"in {sender}",
            cause="nothing was seen of the packet, the cause is unknown",
            reason=recording.error,
            change="Look at the sender's socket and routes: lab exec.",
            trace=trace,
        )
    return Diagnosis(
        where=f"in {sender}, before the packet left its socket",
        cause=cause.what,
        change=cause.change,
        reason=recording.error,
        trace=trace,
    )


def _unknown(trace: Trace) -> Diagnosis:
    hop = trace.taken[-1]
    if hop.step in (Step.XDP_DRIVER, Step.CLEAN_RX):
        run = (one for one in trace.taken if one.place == hop.place and one.hook == "xdp")
        if (xdp := next(run, None)) is not None and xdp.program:
            return Diagnosis(
                where=_where(xdp),
                cause="an XDP program took it out of the stack (XDP_TX or a redirect), and it was "
                "not seen again",
                entry=xdp.program,
                change=KERNEL["XDP"].change,
                hop=xdp,
                trace=trace,
            )
    return Diagnosis(
        known=False,
        where=_where(hop),
        cause="the packet was seen here last and nobody reported a drop: the cause is unknown",
        entry=hop.reason,
        change="Look at the ladder: lab trace.",
        hop=hop,
        trace=trace,
    )
