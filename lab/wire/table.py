"""A recording as one tidy table: a row per observation, whoever made it; CSV for other programs."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path

from lab.wire.endpoint import TcpInfo
from lab.wire.events import NO_THRESHOLD, CongestionState, TcpEvent, TcpState, What
from lab.wire.judge import Fate
from lab.wire.record import CLIENT, SERVER, Segment
from lab.wire.recording import Recording, flag_names


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One observation; what an observer does not know is empty.

    Attributes:
        time_ms: since the first packet; empty for a counter, which is read at the end.
        host: ``client`` or ``server``.
        observer: ``sent`` and ``received`` (the device), ``probe``, ``retransmit``,
            ``congestion`` and ``state`` (the kernel's tracepoints), ``tcp_info`` (a sample),
            ``counter`` (SNMP).
        port: the client's: which connection.
        cookie: of the socket.
        seq: first byte's number, as in the pictures.
        ack: next byte expected.
        length: payload in bytes.
        flags: such as ``SYN|ACK``.
        window: advertised, in bytes.
        fate: what the wire did, for ``sent``.
        cwnd: segments.
        ssthresh: segments; empty before the first loss.
        in_flight: segments.
        snd_wnd: bytes the other side allows.
        rcv_wnd: bytes allowed to the other side.
        srtt_us: microseconds.
        what: a state's name, or a counter's.
        value: of the counter.
    """

    host: str
    observer: str
    time_ms: str = ""
    port: int | str = ""
    cookie: int | str = ""
    seq: int | str = ""
    ack: int | str = ""
    length: int | str = ""
    flags: str = ""
    window: int | str = ""
    fate: str = ""
    cwnd: int | str = ""
    ssthresh: int | str = ""
    in_flight: int | str = ""
    snd_wnd: int | str = ""
    rcv_wnd: int | str = ""
    srtt_us: int | str = ""
    what: str = ""
    value: int | str = ""


def rows(recording: Recording, samples: Iterable[tuple[str, TcpInfo]] = ()) -> tuple[Row, ...]:
    """Return the table: packets, events and samples in the order of time, then counters.

    Args:
        recording: of two hosts.
        samples: ``TCP_INFO`` with the host it was read at.
    """
    # by object: two rows may be equal in every value, and each was one packet
    fates = {id(flight.sent): flight.fate for flight in recording.flights}
    timed = [(row.time_ns, _packet(row, fates.get(id(row)))) for row in recording.segments]
    timed += [(event.time_ns, _event(event)) for event in recording.events]
    timed += [(info.time_ns, _sample(host, info)) for host, info in samples]
    # stable: what has one and the same time stays in the order of its observer
    timed.sort(key=lambda pair: pair[0])
    observed = [replace(row, time_ms=f"{recording.at_ms(time_ns):.3f}") for time_ns, row in timed]
    return (*observed, *_counters(recording))


def save(recording: Recording, path: Path, *, samples: Iterable[tuple[str, TcpInfo]] = ()) -> Path:
    """Leave the table as a CSV file with a line of headings at ``path`` and return the path."""
    names = [field.name for field in fields(Row)]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows([getattr(row, name) for name in names] for row in rows(recording, samples))
    return path


def _threshold(segments: int) -> int | str:
    # before the first loss there is none
    return segments if segments < NO_THRESHOLD else ""


def _packet(seen: Segment, fate: Fate | None) -> Row:
    state = seen.state
    return Row(
        host=seen.host,
        observer=seen.end.value,
        port=seen.port,
        cookie=seen.cookie or "",
        seq=seen.seq,
        ack=seen.ack,
        length=seen.length,
        flags=flag_names(seen.flags) or seen.kind.value,
        window=seen.window,
        fate=fate.value if fate else "",
        cwnd=state.cwnd if state else "",
        ssthresh=_threshold(state.ssthresh) if state else "",
        in_flight=state.in_flight if state else "",
        srtt_us=state.srtt_us if state else "",
    )


def _event(event: TcpEvent) -> Row:
    known = event.what is not What.STATE
    named = {
        What.STATE: lambda: TcpState(event.after).name,
        What.CONGESTION: lambda: CongestionState(event.after).name,
    }
    return Row(
        host=CLIENT if event.at_client else SERVER,
        observer=event.what.name.lower(),
        port=event.port,
        cookie=event.cookie,
        cwnd=event.cwnd if known else "",
        ssthresh=_threshold(event.ssthresh) if known else "",
        in_flight=event.packets_out if known else "",
        snd_wnd=event.snd_wnd if known else "",
        rcv_wnd=event.rcv_wnd if known else "",
        srtt_us=event.srtt_us if known else "",
        what=named.get(event.what, str)(),
    )


def _sample(host: str, info: TcpInfo) -> Row:
    return Row(
        host=host,
        observer="tcp_info",
        cwnd=info.cwnd,
        ssthresh=_threshold(info.ssthresh),
        in_flight=info.unacked,
        snd_wnd=info.snd_wnd,
        rcv_wnd="" if info.rcv_wnd is None else info.rcv_wnd,
        srtt_us=info.rtt_us,
        what=TcpState(info.state).name,
    )


def _counters(recording: Recording) -> Iterator[Row]:
    for host, counters in zip((CLIENT, SERVER), recording.counters, strict=True):
        for name, value in counters.moved():
            yield Row(host=host, observer="counter", what=name, value=value)
