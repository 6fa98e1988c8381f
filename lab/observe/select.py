"""What the fields of a packet filter mean: how a value is read and which packets have it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import AddressValueError, IPv4Address, IPv4Network, NetmaskValueError

from lab.errors import InputError
from lab.names import RESERVED_IDENTITIES, did_you_mean
from lab.observe.headers import PROTOCOLS, TCP, UDP, Packet, network_bytes_of, parse
from lab.observe.words import HOOKS, VERDICTS
from lab.trace import Evidence, Hop, Step, Trace

Value = str | int | frozenset[int] | IPv4Network
_Got = str | int | IPv4Address | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """The names of a lab that filters may use; an empty table accepts every name.

    Attributes:
        places: field name (``pod node device``) -> names.
        identities: ``key=value`` and reserved word -> numbers.
        drop_reasons: in capitals, the kernel's and the datapath's.
        buffers: of the user's own probes; lines of theirs name them as hooks.
        is_function: whether the kernel has a function of this name; one may have freed a packet.
    """

    places: Mapping[str, frozenset[str]] = field(default_factory=dict)
    identities: Mapping[str, frozenset[int]] = field(default_factory=dict)
    drop_reasons: frozenset[str] = frozenset()
    buffers: frozenset[str] = frozenset()
    is_function: Callable[[str], bool] = lambda _: True


NOWHERE = Known()
"""No lab: every name is accepted as it is written."""

_HUBBLE = {"POLICY_DENIED": "POLICY"}
"""Names that flow logs give to the datapath's reasons."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A field of the language.

    Attributes:
        name: the word for it.
        read: value in the text -> value compared; raises InputError.
        found: everything a packet has of this field.
        layered: it may be asked of the innermost (default) or the outer header.
        layer: ``outer`` or empty.
    """

    name: str
    read: Callable[[str, Known], Value]
    found: Callable[[Trace, str], Iterator[_Got]]
    layered: bool = False
    layer: str = ""

    def of(self, layer: str) -> Asked:
        """Return the field as asked of one layer of headers."""
        return replace(self, layer=layer) if layer == "outer" else self

    def matches(self, trace: Trace, values: tuple[Value, ...]) -> bool:
        """Whether a packet has one of the values; without values, whether it has anything."""
        seen = self.found(trace, self.layer)
        if not values:
            return any(seen)
        return any(_same(got, value) for got in seen for value in values)


def _same(got: _Got, value: Value) -> bool:
    if isinstance(value, IPv4Network):
        return isinstance(got, IPv4Address) and got in value
    if isinstance(value, frozenset):
        return got in value
    return got == value


# -- reading values ----


def _word(text: str, _: Known) -> Value:
    return text


def _name(kind: str) -> Callable[[str, Known], Value]:
    def read(text: str, known: Known) -> Value:
        names = known.places.get(kind, frozenset())
        name = text.removeprefix("default/")
        if names and name not in names:
            raise InputError(f"there is no {kind} {text!r}", hint=did_you_mean(text, names))
        return name

    return read


def _identity(text: str, known: Known) -> Value:
    if text.isdecimal():
        return frozenset({int(text)})
    reserved = RESERVED_IDENTITIES.get(text.removeprefix("reserved:"))
    if reserved is not None:
        return frozenset({reserved})
    numbers = known.identities.get(text.removeprefix("k8s:"))
    if numbers is None:
        hint = did_you_mean(text, known.identities) if known.identities else "give its number"
        raise InputError(f"no identity has the label {text!r}", hint=hint)
    return numbers


def _reason(text: str, known: Known) -> Value:
    word = text.upper().replace("-", "_")
    word = _HUBBLE.get(word, word)
    if known.drop_reasons and word not in known.drop_reasons:
        raise InputError(
            f"there is no drop reason {text!r}",
            hint=did_you_mean(word, known.drop_reasons | _HUBBLE.keys()),
        )
    return word


def _one_of(what: str, words: frozenset[str]) -> Callable[[str, Known], Value]:
    def read(text: str, _: Known) -> Value:
        if text.lower() not in words:
            raise InputError(f"there is no {what} {text!r}", hint=did_you_mean(text, words))
        return text.lower()

    return read


def _hook(text: str, known: Known) -> Value:
    word = text.lower()
    if word in HOOKS:
        return word
    if text not in known.buffers and not known.is_function(text):
        raise InputError(
            f"there is no hook {text!r}", hint=did_you_mean(word, HOOKS | known.buffers)
        )
    return text


def _number(what: str, largest: int) -> Callable[[str, Known], Value]:
    def read(text: str, _: Known) -> Value:
        if not text.isdecimal() or not 0 < int(text) <= largest:
            raise InputError(f"{text!r} is no {what}", hint=f"use 1 to {largest}")
        return int(text)

    return read


def _network(text: str, _: Known) -> Value:
    try:
        return IPv4Network(text, strict=False)
    except (AddressValueError, NetmaskValueError, ValueError):
        raise InputError(
            f"{text!r} is no IPv4 address or network", hint="like 10.0.2.10 or 10.0.2.0/24"
        ) from None


# -- what a packet has ----


def _hops(name: str) -> Callable[[Trace, str], Iterator[_Got]]:
    def found(trace: Trace, _: str) -> Iterator[_Got]:
        return (getattr(hop, name) for hop in trace.taken)

    return found


def _pods(trace: Trace, _: str) -> Iterator[_Got]:
    yield trace.packet.sender
    yield trace.packet.receiver
    for hop in trace.taken:
        if hop.namespace != hop.node:
            yield hop.namespace
            # outside of `default` a pod's network namespace is called NAMESPACE.POD
            yield hop.namespace.replace(".", "/", 1)


def _reasons(trace: Trace, _: str) -> Iterator[_Got]:
    return (hop.drop_reason.upper() for hop in trace.taken if hop.drop_reason)


def _evidence(trace: Trace, _: str) -> Iterator[_Got]:
    return (hop.evidence.word for hop in trace.taken)


def _steps(trace: Trace, _: str) -> Iterator[_Got]:
    return (hop.step.number for hop in trace.taken if hop.step)


def _packet_field(name: str) -> Callable[[Trace, str], Iterator[_Got]]:
    def found(trace: Trace, _: str) -> Iterator[_Got]:
        yield getattr(trace.packet, name)

    return found


def headers(trace: Trace, layer: str) -> Iterator[Packet]:
    """Yield the packet's headers as each hop saw them: the innermost, or the outer of a tunnel."""
    for hop in trace.taken:
        for data in (_network_bytes(hop, hop.before), _network_bytes(hop, hop.after)):
            inside = parse(data) if data else None
            if inside is None:
                continue
            if layer != "outer":
                yield inside
            elif inside.vni is not None and (outside := parse(data, through=False)) is not None:
                yield outside


def _network_bytes(hop: Hop, data: bytes | None) -> bytes:
    if not data:
        return b""
    return network_bytes_of(data) if hop.link_layer == "ethernet" else data


def _addresses(*ends: str) -> Callable[[Trace, str], Iterator[_Got]]:
    def found(trace: Trace, layer: str) -> Iterator[_Got]:
        for end in ends:
            if layer != "outer":
                yield IPv4Address(getattr(trace.packet, end))
            yield from (getattr(packet, end) for packet in headers(trace, layer))

    return found


def _ports(*ends: int) -> Callable[[Trace, str], Iterator[_Got]]:
    def found(trace: Trace, layer: str) -> Iterator[_Got]:
        first = (trace.packet.source_port, trace.packet.destination_port)
        for end in ends:
            if layer != "outer" and trace.packet.protocol in ("tcp", "udp"):
                yield first[end]
            for packet in headers(trace, layer):
                if packet.protocol in (TCP, UDP):
                    yield packet.ports[end]

    return found


def _true(name: str) -> Callable[[Trace, str], Iterator[_Got]]:
    def found(trace: Trace, _: str) -> Iterator[_Got]:
        yield int(bool(getattr(trace, name)))

    return found


def _is(protocol: str) -> Callable[[Trace, str], Iterator[_Got]]:
    def found(trace: Trace, _: str) -> Iterator[_Got]:
        yield int(trace.packet.protocol == protocol)

    return found


_GRADES = frozenset(grade.word for grade in Evidence if grade.taken)
_PROTOCOL_WORDS = frozenset(PROTOCOLS.values()) | {"arp"}
_PORT = _number("port", 65535)
_TRUE = {"dropped": "drops", "delivered": "delivered"}

FIELDS = {
    one.name: one
    for one in (
        Asked("pod", _name("pod"), _pods),
        Asked("node", _name("node"), _hops("node")),
        Asked("device", _name("device"), _hops("device")),
        Asked("namespace", _word, _hops("namespace")),
        Asked("from", _name("place"), _packet_field("sender")),
        Asked("to", _name("place"), _packet_field("receiver")),
        Asked("hook", _hook, _hops("hook")),
        Asked("program", _word, _hops("program")),
        Asked("verdict", _one_of("verdict", VERDICTS), _hops("verdict")),
        Asked("evidence", _one_of("grade of evidence", _GRADES), _evidence),
        Asked("step", _number("step", len(Step)), _steps),
        Asked("identity", _identity, _hops("identity")),
        Asked("drop_reason", _reason, _reasons),
        Asked("protocol", _one_of("protocol", _PROTOCOL_WORDS), _packet_field("protocol")),
        Asked("src", _network, _addresses("source"), layered=True),
        Asked("dst", _network, _addresses("destination"), layered=True),
        Asked("host", _network, _addresses("source", "destination"), layered=True),
        Asked("sport", _PORT, _ports(0), layered=True),
        Asked("dport", _PORT, _ports(1), layered=True),
        Asked("port", _PORT, _ports(0, 1), layered=True),
    )
}
"""Fields by their word."""

FLAGS = {
    **{word: Asked(word, _word, _true(name)) for word, name in _TRUE.items()},
    **{word: Asked(word, _word, _is(word)) for word in sorted(_PROTOCOL_WORDS)},
}  # fmt: skip
"""Words that are statements on their own."""
