"""What netem did is read off the packets: the same bytes sent and arrived."""

from dataclasses import replace

from segments import data, recording

from lab.wire.judge import Fate
from lab.wire.netem import Since, flights, unmet
from lab.wire.record import End
from lab.wire.rules import Delay, Drop, Script, Way, everything

LOSES = Since(30_000_000, Script((Drop(everything(Way.TO_SERVER)),)))
FREE = Since(0, Script())


def sent_and_arrived():
    """Return three sent rows, the first with one arrival and the second with two."""
    rows = [row for row in recording(data(1, 20), data(1001, 21), data(2001, 40)).segments]
    rows = [row for row in rows if row.end is End.SENT and row.length]
    first, second, third = rows
    arrive = [replace(row, end=End.RECEIVED, time_ns=row.time_ns + 5) for row in (first, second)]
    return [first, second, *arrive, replace(arrive[1], time_ns=arrive[1].time_ns + 1), third]


def test_arrivals_are_found_by_their_bytes() -> None:
    found = flights(sent_and_arrived(), [FREE])
    assert [len(flight.arrived_ns) for flight in found] == [1, 2, 0]
    assert [flight.fate for flight in found] == [Fate.DELIVERED, Fate.DUPLICATED, Fate.DELIVERED]


def test_what_did_not_arrive_is_lost_only_while_everything_is() -> None:
    assert [flight.lost for flight in flights(sent_and_arrived(), [FREE, LOSES])] == [
        False,
        False,
        True,
    ]


def test_a_rule_without_a_packet_is_unmet() -> None:
    found = flights(sent_and_arrived(), [FREE])
    to_client = Since(0, Script((Delay(everything(Way.TO_CLIENT), 5),)))
    assert unmet(found, to_client) == ("delay packet server→client by 5 ms: 0 such packets came",)
    assert unmet(found, LOSES) == ()
