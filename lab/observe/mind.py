"""The datapath's own notes beside the hooks in which its programs ran."""

from __future__ import annotations

import bisect
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Address

from lab.kernel import vm
from lab.observe.names import Names
from lab.observe.records import Config, Kind, Link, MindRecord, Record
from lab.trace import Hop, LookUp

# TC_ACT_*; a drop reason is smaller than all of them
_ACTIONS = {0: "pass", 2: "drop", 7: "redirect", -1: "pass", 4: "stolen"}
_CT = {0: "new", 1: "established", 2: "reply", 3: "related"}
# a program takes microseconds; emulated processors, with neighbours, many milliseconds
LONGEST_RUN_NS = 100_000_000 if vm.inside() else 1_000_000
"""Between a program's entry at its hook and its last note."""


def entries(notes: Iterable[MindRecord], names: Names) -> list[Record]:
    """Return a record for each time a datapath program was entered at its hook."""
    words = names.words.get("mind_program", {})
    kinds = {number for number, word in names.words.get("mind_kind", {}).items() if word == "ENTER"}
    found = []
    for note in notes:
        if note.kind not in kinds:
            continue
        program = f"cil_{words.get(note.what, '').lower()}"
        for side, kind in (("ingress", Kind.TC_INGRESS), ("egress", Kind.TC_EGRESS)):
            attached = names.hooks.get((note.netns, note.ifindex, side))
            if attached is not None and attached.name == program:
                found.append(_entry(note, kind))
    return found


def _entry(note: MindRecord, kind: Kind) -> Record:
    return Record(
        ns=note.ns,
        skb=note.skb,
        head=0,
        cookie=0,
        location=0,
        arg=0,
        netns=note.netns,
        ifindex=note.ifindex,
        length=0,
        mark=note.mark,
        hash=note.hash,
        reason=0,
        verdict=0,
        # a note does not say on which processor it was made
        cpu=-1,
        config=Config(0),
        kind=kind,
        link=Link.NONE,
        packet=b"",
        stack=(),
    )


def annotate(
    lines: Sequence[tuple[Hop, ...]], notes: Iterable[MindRecord], names: Names
) -> list[tuple[Hop, ...]]:
    """Return every packet's lines with what the datapath said while its programs ran in them.

    A note belongs to the newest classifier line of its buffer on its device before it, whichever
    packet that line is about: buffers are used again.
    """
    changed = [list(hops) for hops in lines]
    places: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
    for packet, hops in enumerate(lines):
        for index, hop in enumerate(hops):
            if hop.taken and hop.program.startswith("cil_"):
                places.setdefault((hop.skb, hop.ifindex), []).append((hop.ns, packet, index))
    for seen in places.values():
        seen.sort()
    for note in sorted(notes, key=lambda note: note.ns):
        seen = places.get((note.skb, note.ifindex), [])
        at = bisect.bisect_right(seen, (note.ns, len(lines), 0)) - 1
        # a much later note is about another run, whose beginning nobody saw
        if at >= 0 and note.ns - seen[at][0] < LONGEST_RUN_NS:
            _, packet, index = seen[at]
            changed[packet][index] = _with(changed[packet][index], note, names)
    return [tuple(hops) for hops in changed]


def _with(hop: Hop, note: MindRecord, names: Names) -> Hop:
    match names.words.get("mind_kind", {}).get(note.kind, ""):
        case "TAIL_CALL":
            return _add(hop, _tail_call(note, names))
        case "LOOKUP":
            return _add(hop, _look_up(note, names))
        case "CT":
            state = _CT.get(note.arg, str(note.arg))
            entry = LookUp(map="conntrack", key=_tuple(note.key), value=state)
            return replace(_add(hop, entry), ct_state=state)
        case "POLICY":
            return _add(hop, _policy(note))
        case "SERVICE":
            value = f"reverse NAT index {note.arg}" if note.found else None
            return _add(hop, LookUp(map="cilium_lb4_services_v2", key=_service(note), value=value))
        case "BACKEND":
            where = _address_port(note.value) if note.found else None
            return _add(hop, LookUp(map="cilium_lb4_backends_v3", key=str(note.arg), value=where))
        case "NAT":
            now = _address_port(note.value)
            return _add(hop, LookUp(map="cilium_snat_v4_external", key=_tuple(note.key), value=now))
        case "VERDICT":
            return _verdict(hop, note, names)
    return hop


def _add(hop: Hop, entry: LookUp) -> Hop:
    return replace(hop, lookups=(*hop.lookups, entry))


def _verdict(hop: Hop, note: MindRecord, names: Names) -> Hop:
    if note.arg in _ACTIONS:
        return replace(hop, verdict=hop.verdict or _ACTIONS[note.arg])
    reason = names.words.get("drop_reason", {}).get(note.arg, str(note.arg))
    return replace(hop, verdict="drop", drop_reason=reason)


def _tail_call(note: MindRecord, names: Names) -> LookUp:
    table = names.words.get("mind_map", {}).get(note.what, "")
    if table == "CALL_POLICY":
        return LookUp(map="cilium_call_policy", key=f"endpoint {note.arg}", value="tail call")
    return LookUp(map="cilium_calls", key=f"slot {note.arg}", value="tail call")


_MAPS = {
    "IPCACHE": "cilium_ipcache",
    "LXC": "cilium_lxc",
    "TUNNEL": "cilium_tunnel_map",
    "CALL_POLICY": "cilium_call_policy",
    "FRAG": "cilium_ipv4_frag_datagrams",
    "SNAT": "cilium_snat_v4_external",
    "AFFINITY": "cilium_lb4_affinity",
    "SOURCE_RANGE": "cilium_lb4_source_range",
    "MAGLEV": "cilium_lb4_maglev",
    "NEIGH": "cilium_nodeport_neigh4",
    "REVERSE_NAT": "cilium_lb4_reverse_nat",
    "IPMASQ": "cilium_ipmasq_v4",
}


def _look_up(note: MindRecord, names: Names) -> LookUp:
    word = names.words.get("mind_map", {}).get(note.what, str(note.what))
    table = _MAPS.get(word, word.lower())
    return LookUp(map=table, key=_key(word, note.key), value=_value(word, note))


def _key(word: str, key: bytes) -> str:
    if word == "IPCACHE":
        # prefix length (32 bits of it are the fixed part), pad, family, address
        return f"{IPv4Address(key[8:12])}"
    if word in ("LXC", "TUNNEL", "NEIGH"):
        return f"{IPv4Address(key[:4])}"
    return key.rstrip(b"\0").hex()


def _value(word: str, note: MindRecord) -> str | None:
    if not note.found:
        return None
    if word == "IPCACHE":
        identity, tunnel = struct.unpack_from("<I4s", note.value)
        behind = IPv4Address(tunnel)
        return f"identity {identity}" + (f", behind {behind}" if int(behind) else "")
    if word == "LXC":
        # struct endpoint_info begins so
        (ifindex, _, endpoint) = struct.unpack_from("<IHH", note.value)
        return f"endpoint {endpoint}, ifindex {ifindex}"
    if word in ("TUNNEL", "NEIGH"):
        return f"{IPv4Address(note.value[:4])}"
    return note.value.rstrip(b"\0").hex()


def _tuple(key: bytes) -> str:
    # Cilium's tuples name addresses as the reply has them, but ports as the original does.
    source, destination, dport, sport, protocol = struct.unpack_from("!4s4sHHB", key)
    return (
        f"{IPv4Address(source)}:{sport} -> {IPv4Address(destination)}:{dport} protocol {protocol}"
    )


def _policy(note: MindRecord) -> LookUp:
    label, port, protocol, egress = struct.unpack_from("!4sHBB", note.key)
    side = "egress" if egress & 1 else "ingress"
    # in the processor's own order, unlike the port beside it
    identity = int.from_bytes(label, "little") or "any"
    key = f"{side} identity {identity} protocol {protocol or 'any'} port {port or 'any'}"
    if note.arg > 0:
        return LookUp(map="cilium_policy", key=key, value=f"to proxy port {note.arg}")
    if note.arg < 0:
        return LookUp(map="cilium_policy", key=key, value="denied" if note.found else None)
    return LookUp(map="cilium_policy", key=key, value="allowed" if note.found else None)


def _service(note: MindRecord) -> str:
    return _address_port(note.key)


def _address_port(data: bytes) -> str:
    address, port = struct.unpack_from("!4sH", data)
    return f"{IPv4Address(address)}:{port}"


def words_of(enums: Mapping[str, Mapping[str, int]]) -> dict[str, dict[int, str]]:
    """Return the datapath's own words by number, read from the compiled object's types.

    Args:
        enums: constants by enum name, as `lab.kernel.btf.Btf.enums` gives them.
    """
    prefixes = {
        "mind_kind": "MIND_",
        "mind_program": "MIND_PROGRAM_",
        "mind_map": "MIND_MAP_",
        "drop_reason": "DROP_",
    }
    return {
        name: {number: word.removeprefix(prefix) for word, number in table.items()}
        for name, prefix in prefixes.items()
        if (table := enums.get(name))
    }
