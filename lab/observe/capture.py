"""A trace as a capture file: one interface per hook, the verdict as the packet's comment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lab.packets import pcapng
from lab.trace import Hop, Side, Trace

_LINK_TYPES = {"ethernet": pcapng.LinkType.ETHERNET, "ip": pcapng.LinkType.RAW_IP}


def write_pcapng(traces: Trace | Sequence[Trace], path: Path) -> int:
    """Write every line that has bytes; return how many packets the file holds.

    Several traces are merged in order of time.

    Wireshark and tshark show ``NAMESPACE/DEVICE HOOK`` as the interface and, as comment, step,
    evidence, program, verdict, mark and identity.

    Raises:
        InputError: the file cannot be written.
    """
    several = (traces,) if isinstance(traces, Trace) else tuple(traces)
    seen = [(hop, trace.wall_ns) for trace in several for hop in trace.taken if hop.before]
    if len(several) > 1:
        # one trace alone keeps its ladder's order: steps of the same moment stay in theirs
        seen.sort(key=lambda pair: pair[0].ns)
    hops = [hop for hop, _ in seen]
    names = list(dict.fromkeys(map(_interface, hops)))
    interfaces = [
        pcapng.Interface(name=name, link_type=_LINK_TYPES[link_layer]) for name, link_layer in names
    ]
    packets = [
        pcapng.Packet(
            interface=names.index(_interface(hop)),
            time_ns=hop.ns + wall_ns,
            data=hop.before or b"",
            # pcapng: no more can be captured than there was
            length=max(hop.length, len(hop.before or b"")),
            direction=pcapng.Direction.OUTBOUND
            if hop.side is Side.SEND
            else pcapng.Direction.INBOUND,
            comment=comment(hop),
        )
        for hop, wall_ns in seen
    ]
    about = str(several[0].packet) if len(several) == 1 else f"{len(several)} packets"
    pcapng.write(path, interfaces, packets, comment=f"lab trace: {about}")
    return len(packets)


def _interface(hop: Hop) -> tuple[str, str]:
    where = "/".join(filter(None, (hop.namespace, hop.device)))
    return f"{where} {hop.hook}", hop.link_layer


def comment(hop: Hop) -> str:
    """Return one line about a hop: step, evidence, program, verdict, rules, mark, identity."""
    parts = [
        f"step {hop.step}" if hop.step else hop.hook,
        f"evidence {hop.evidence} ({hop.object})",
    ]
    if hop.program:
        parts.append(hop.program)
    if hop.verdict:
        parts.append(f"verdict {hop.verdict}" + (f": {hop.drop_reason}" if hop.dropped else ""))
    parts += [str(met) for met in hop.met if met.kind in ("rule", "policy")]
    if hop.mark:
        parts.append(f"mark {hop.mark:#x}")
    if hop.identity is not None:
        parts.append(f"identity {hop.identity}")
    return ", ".join(parts)
