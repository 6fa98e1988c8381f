"""IPsec's ESP on a packet's way: encrypted, carried under a number, decrypted, checked.

Only function probes tell of it (``bpf/probes/ipsec.h``): the kernel has no tracepoint there.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address

from lab.kernel.functions import TYPES, why_not
from lab.kernel.tracing import kernel_knows
from lab.observe.drops import Drop
from lab.observe.headers import CHECK_LATER, ESP, PROTOCOLS, outermost, secret_of
from lab.observe.programs import Probe, entry
from lab.observe.records import Kind, Record
from lab.observe.walk import DELIVER, Builder, Walk
from lab.trace import Evidence, Hop, Met, SendHook, Side, Step

ESP_INPUT = "xfrm4_esp_rcv"
"""ESP's handler, which is to it what ``udp_rcv`` is to UDP."""
NO_STATE_OUT, NO_STATE_IN = "XfrmOutNoStates", "XfrmInNoStates"
BAD_CONTENTS, REPLAYED = "XfrmInStateProtoError", "XfrmInStateSeqError"
"""The kernel's own names of what went wrong: counters of ``/proc/net/xfrm_stat``."""


LOST = "what IPsec encrypts"
"""How a sentence begins about evidence that this kernel does not give."""


PROBES = (
    entry("on_xfrm_output", Kind.XFRM_OUTPUT, "xfrm_output", "packets about to be encrypted"),
    entry("on_esp_output", Kind.XFRM_ENCRYPT, "esp_output", "the number of an encrypted packet"),
    entry("on_xfrm_input", Kind.XFRM_INPUT, "xfrm_input", "packets about to be decrypted"),
    entry("on_esp_input", Kind.XFRM_DECRYPT, "esp_input", "what decryption said"),
    entry("on_deliver_decrypted", Kind.XFRM_DELIVER, "ip_local_deliver", "the second delivery"),
    entry("on_policy_checked", Kind.XFRM_CHECK, "__xfrm_policy_check", "the policy's answer"),
    entry("on_no_state", Kind.XFRM_FAULT, "xfrm_audit_state_notfound", "unknown SPIs"),
    entry("on_replay", Kind.XFRM_FAULT, "xfrm_audit_state_replay", "repeated packets"),
    entry("on_discard", Kind.XFRM_DISCARD, "dst_discard_out", "a sender without a state"),
)
"""What tells of encryption, where the kernel has ESP and lets its functions be probed."""


def usable(*, functions: bool) -> tuple[Probe, ...]:
    """Return the probes that the running kernel takes: all that have their function, or none.

    Args:
        functions: whether the kernel lets functions be probed at all.
    """
    if not functions or not has_esp():
        return ()
    return tuple(probe for probe in PROBES if not why_not(probe.needs))


def has_esp() -> bool:
    """Whether the kernel's ESP is there, built in or loaded."""
    # a module's types stand in a file of its own
    return kernel_knows("esp_output") or (TYPES / "esp4").exists()


def missing(*, functions: bool) -> tuple[str, ...]:
    """Return what cannot be told of encryption though the kernel can do it, a sentence each."""
    if not has_esp():
        return ()
    if not functions:
        return (f"{LOST}: this kernel lets no function be probed",)
    reasons = ((probe, why_not(probe.needs)) for probe in PROBES)
    return tuple(
        f"{probe.gives}: {probe.needs} cannot be probed ({reason})"
        for probe, reason in reasons
        if reason
    )


# XFRM_MODE_* (linux/xfrm.h)
_MODES = {0: "transport", 1: "tunnel", 4: "BEET"}
_FORWARD = 2
# enum xfrm_fault of bpf/probes/ipsec.h
_FAULTS = {
    1: (NO_STATE_IN, "no state here has its SPI"),
    2: (REPLAYED, "its sequence number was here before, or is too old"),
}


@dataclass(frozen=True, slots=True)
class _Association:
    """What a state is called: destination and SPI, and in which mode it wraps."""

    destination: IPv4Address
    spi: int
    mode: str

    @property
    def met(self) -> Met:
        return Met(
            kind="xfrm",
            name=f"state dst {self.destination} proto esp spi 0x{self.spi:08x}",
            text=f"mode {self.mode}",
            source="the packet's route",
        )


def _association(record: Record) -> _Association:
    mode = record.arg >> 32
    destination, spi, _ = secret_of(record)
    return _Association(destination, spi, _MODES.get(mode, f"mode {mode}"))


# -- lines ----------------------------------------------------------------------------------------


def _output(builder: Builder, record: Record) -> None:
    walk = builder.walk(record, Side.SEND)
    state = _association(record)
    hop = builder.add(
        record, walk, SendHook.XFRM_OUT.value, "on_xfrm_output", evidence=Evidence.PROBE,
        reason=f"IPsec takes it: {state.mode} mode, SPI 0x{state.spi:08x}",
    )  # fmt: skip
    walk.hops[-1] = replace(hop, met=(state.met,))


def _encrypt(builder: Builder, record: Record) -> None:
    found = _newest(builder, SendHook.XFRM_OUT.value)
    if found is None:
        return
    walk, index = found
    _, spi, number = secret_of(record)
    mode = _association(record).mode
    state = _association(record).met
    walk.hops[index] = replace(
        walk.hops[index],
        verdict="encrypted",
        met=(replace(state, text=f"{state.text}, sequence number {number}"),),
        reason=f"esp_output encrypts it: {mode} mode, SPI 0x{spi:08x}, sequence number {number}",
    )


def _input(builder: Builder, record: Record) -> None:
    walk = builder.walk(record, Side.RECEIVE)
    stack = builder.names.frames(record.stack)
    if seen := next((name for name in DELIVER if name in stack), ""):
        builder.by_stack(record, walk, Step.IP_LOCAL_DELIVER, DELIVER[0], seen)
    packet = outermost(record)
    told = ""
    met: tuple[Met, ...] = ()
    if packet is not None and packet.protocol == ESP and packet.serial:
        told = f" (SPI 0x{packet.serial[0]:08x}, sequence number {packet.serial[1]})"
        name = f"spi 0x{packet.serial[0]:08x} sequence number {packet.serial[1]}"
        met = (Met(kind="xfrm", name=name, source="the packet's own header"),)
    hop = builder.add(
        record, walk, ESP_INPUT, "on_xfrm_input", step=Step.L4_RECEIVE, evidence=Evidence.PROBE,
        reason=f"xfrm_input looks for the state{told}",
    )  # fmt: skip
    walk.hops[-1] = replace(hop, met=met)


def _decrypt(builder: Builder, record: Record) -> None:
    found = _newest(builder, ESP_INPUT)
    if found is None:
        return
    walk, index = found
    hop = walk.hops[index]
    if record.verdict > 0:
        walk.opened = True
        inside = {4: "IP packet"}.get(record.verdict) or PROTOCOLS.get(record.verdict, "")
        said = f"esp_input decrypted it, {inside or f'protocol {record.verdict}'} inside"
        walk.hops[index] = replace(hop, verdict="decrypted", reason=f"{said}{_numbers(hop)}")
        return
    name = errno.errorcode.get(-record.verdict, str(record.verdict))
    said = f"esp_input refused it, {name}"
    if name == "EBADMSG":
        said = "its integrity check failed: another key, or changed on the way"
    walk.hops[index] = replace(
        hop, verdict="drop", drop_reason=BAD_CONTENTS, reason=f"{said}{_numbers(hop)}"
    )
    walk.drop = Drop(Step.L4_RECEIVE, ESP_INPUT)


def _numbers(hop: Hop) -> str:
    # SPI and number, which only the line about xfrm_input had from the packet itself
    _, bracket, numbers = hop.reason.partition(" (")
    return bracket + numbers


def _fault(builder: Builder, record: Record) -> None:
    found = _newest(builder, ESP_INPUT)
    if found is None or record.arg not in _FAULTS:
        return
    walk, index = found
    hop = walk.hops[index]
    name, said = _FAULTS[record.arg]
    walk.hops[index] = replace(
        hop, verdict="drop", drop_reason=name, reason=f"{said}{_numbers(hop)}"
    )
    walk.drop = Drop(Step.L4_RECEIVE, ESP_INPUT)


def _deliver(builder: Builder, record: Record) -> None:
    walk = builder.walk(record, Side.RECEIVE)
    walk.config = record.config
    reason = "ip_local_deliver was entered again, with what was decrypted"
    hook, probe = "ip_local_deliver", "on_deliver_decrypted"
    if (index := walk.last(hook)) is not None:  # another probe of the function told already
        walk.hops[index] = replace(walk.hops[index], reason=reason)
        return
    builder.add(
        record, walk, hook, probe, step=Step.IP_LOCAL_DELIVER, evidence=Evidence.PROBE,
        reason=reason,
    )  # fmt: skip


def _check(builder: Builder, record: Record) -> None:
    walk = builder.walk(record, Side.RECEIVE)
    step: Step | None = Step.XFRM_POLICY
    hook = "xfrm_policy"
    if record.arg == _FORWARD:
        step, hook = None, "xfrm_policy_forward"
    elif walk.protocol in CHECK_LATER:
        step, hook = Step.XFRM_POLICY_L4, "xfrm_policy_l4"
    said = "matches what a policy wants" if record.verdict else "is not what a policy wants"
    builder.add(
        record, walk, hook, "on_policy_checked", step=step, evidence=Evidence.PROBE,
        verdict="accept" if record.verdict else "drop",
        reason=f"__xfrm_policy_check: how the packet came {said}",
    )  # fmt: skip


def _discard(builder: Builder, record: Record) -> None:
    walk = builder.walk(record, Side.SEND)
    hop = builder.add(
        record, walk, SendHook.XFRM_OUT.value, "on_discard", evidence=Evidence.PROBE,
        verdict="drop", reason="a policy wants it encrypted, and no state can: IPsec gave it a "
        "route into nothing (dst_discard_out)",
    )  # fmt: skip
    walk.hops[-1] = replace(hop, drop_reason=NO_STATE_OUT)
    walk.drop = Drop(None, SendHook.XFRM_OUT.value)


LINES: dict[Kind, Callable[[Builder, Record], None]] = {
    Kind.XFRM_OUTPUT: _output,
    Kind.XFRM_ENCRYPT: _encrypt,
    Kind.XFRM_INPUT: _input,
    Kind.XFRM_DECRYPT: _decrypt,
    Kind.XFRM_FAULT: _fault,
    Kind.XFRM_DELIVER: _deliver,
    Kind.XFRM_CHECK: _check,
    Kind.XFRM_DISCARD: _discard,
}
"""What adds the lines about a record of a kind."""


def told(hop: Hop) -> bool:
    """Whether IPsec itself said why it dropped the packet at this line."""
    return hop.drop_reason in (NO_STATE_OUT, NO_STATE_IN, BAD_CONTENTS, REPLAYED)


def _newest(builder: Builder, hook: str) -> tuple[Walk, int] | None:
    for walk in reversed(builder.walks):
        if (index := walk.last(hook)) is not None:
            return walk, index
    return None
