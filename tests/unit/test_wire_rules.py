"""Scripts that make sense are accepted; every other one is refused with its reason."""

import pytest

from lab.errors import InputError
from lab.wire.rules import (
    Corrupt,
    Delay,
    Drop,
    Duplicate,
    Kind,
    Match,
    Rate,
    Reorder,
    Script,
    Way,
    ack,
    data,
    describe,
    everything,
    script,
    syn,
)

ACCEPTED = {
    "nothing at all": (),
    "two drops of different segments": (Drop(data(1)), Drop(data(2))),
    "the same ordinal of different kinds": (Drop(data(3)), Delay(ack(3), 5)),
    "the same ordinal in both directions": (Drop(data(3)), Drop(data(3, way=Way.TO_CLIENT))),
    "a delay and a copy of one segment": (Delay(data(3), 5), Duplicate(data(3))),
    "one rate per direction": (
        Rate(way=Way.TO_SERVER, rate_mbit=1),
        Rate(way=Way.TO_CLIENT, rate_mbit=2),
    ),
}

REFUSED = {
    "drop and delay of one segment": (lambda: (Drop(data(2)), Delay(data(2, 3), 5)), "contradict"),
    "drop of every and copy of one": (lambda: (Drop(data()), Duplicate(data(3))), "contradiction"),
    "two delays of one segment": (lambda: (Delay(data(2), 5), Delay(data(2), 6)), "contradiction"),
    "reorder and corrupt one segment": (lambda: (Reorder(ack(1)), Corrupt(ack(1))), "contradict"),
    "two rates of one direction": (
        lambda: [Rate(way=Way.TO_SERVER, rate_mbit=r) for r in (1, 2)],
        "two rates",
    ),
    "a rate of nothing": (lambda: [Rate(way=Way.TO_SERVER, rate_mbit=0)], "above 0 Mbit/s"),
    "a queue that holds nothing": (
        lambda: [Rate(way=Way.TO_SERVER, rate_mbit=1, queue_packets=0)],
        "lets nothing through",
    ),
    "a delay of nothing": (lambda: [Delay(data(1), 0)], "above 0 ms"),
    "a negative delay": (lambda: [Delay(data(1), -4)], "above 0 ms"),
    "reordering behind nothing": (lambda: [Reorder(data(1), behind=0)], "at least 1 other"),
    "no copies": (lambda: [Duplicate(data(1), copies=0)], "at least 1 copy"),
    "the zeroth segment": (lambda: [Drop(data(0))], "at least 1"),
    "one ordinal twice": (lambda: [Drop(data(4, 4))], "named once"),
    "a byte number of a SYN": (
        lambda: [Drop(Match(kind=Kind.SYN, way=Way.TO_SERVER, first_byte=1))],
        "not a SYN",
    ),
}


@pytest.mark.parametrize("rules", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_script_is_accepted(rules) -> None:
    assert script(rules).rules == tuple(rules)


@pytest.mark.parametrize(("rules", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_script_is_refused_with_its_reason(rules, reason: str) -> None:
    with pytest.raises(InputError, match=reason) as refusal:
        script(rules())
    assert refusal.value.hint


def test_a_rate_below_one_segment_per_second_is_refused_with_the_least_that_works() -> None:
    slow = Script((Rate(way=Way.TO_SERVER, rate_mbit=0.001),))
    with pytest.raises(InputError, match="12.1 s"):
        slow.check_frame_fits(1500)
    Script((Rate(way=Way.TO_SERVER, rate_mbit=0.0122),)).check_frame_fits(1500)


SPOKEN = {
    "drop data #2 client→server": Drop(data(2)),
    "drop data from byte 2001 client→server": Drop(data(first_byte=2001)),
    "delay ack #1,2 server→client by 5 ms": Delay(ack(1, 2), 5),
    "reorder data #4 client→server behind 3": Reorder(data(4), behind=3),
    "duplicate SYN client→server": Duplicate(syn()),
    "drop packet over 1400 bytes server→client": Drop(
        everything(Way.TO_CLIENT, longer_than_bytes=1400)
    ),
    "client→server: 5 Mbit/s, queue of 20 packets": Rate(
        way=Way.TO_SERVER, rate_mbit=5, queue_packets=20
    ),
}


@pytest.mark.parametrize(("phrase", "rule"), SPOKEN.items(), ids=SPOKEN.keys())
def test_rule_is_spoken(phrase: str, rule) -> None:
    assert describe(rule) == phrase
