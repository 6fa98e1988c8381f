"""To which packet an event of a user's own probe belongs."""

import pytest

from lab.observe.identify import Journey
from lab.observe.join import join
from lab.observe.records import Config, Kind, Link, Record
from lab.trace.own import At, OwnEvent

US = 1000
A, B = 0xA00, 0xB00


def record(us, kind, skb, *, cpu=0, place=(7, 2)):
    return Record(
        ns=us * US, skb=skb, head=0, cookie=0, location=0, arg=0, netns=place[0], ifindex=place[1],
        length=60, mark=0, hash=0, reason=0, verdict=0, cpu=cpu, config=Config(0), kind=kind,
        link=Link.ETHERNET, packet=b"x", stack=(),
    )  # fmt: skip


def event(us, *, skb=0, cpu=0, at=At.TC_INGRESS, places=((7, 2),), target=""):
    return OwnEvent(
        hook="seen", at=at, function="f", target=target, ns=us * US, cpu=cpu, skb=skb, places=places
    )


LIFE = (record(1000, Kind.RECEIVE_SKB, A), record(1100, Kind.CONSUME, A))
COMES = (record(1000, Kind.RECEIVE_SKB, A), record(1010, Kind.NETFILTER_FIRST, A))
ELSEWHERE = (record(1000, Kind.RECEIVE_SKB, A, place=(7, 9)),)
POINT = {"at": At.TRACEPOINT, "places": ()}
CASES = {
    "a buffer alive": (LIFE, event(1050, skb=A, **POINT), True),
    "another buffer": (LIFE, event(1050, skb=B, **POINT), False),
    "just before its first sight": (LIFE, event(980, skb=A, **POINT), True),
    "long before: the address was another packet's": (LIFE, event(800, skb=A, **POINT), False),
    "behind its end: the address is another's": (LIFE, event(1110, skb=A, **POINT), False),
    "behind its end, on the tracepoint of the end": (
        LIFE, event(1110, skb=A, target="consume_skb", **POINT), True,
    ),
    "in the hook it has just come to": (COMES, event(1005), True),
    "in the same hook on another processor": (COMES, event(1005, cpu=1), False),
    "in the same hook, much later": (COMES[:1], event(9000), False),
    "in the hook of another device": (ELSEWHERE, event(1005), False),
    "behind the hook": (COMES, event(1015), False),
    "before anything": (COMES, event(900), False),
}  # fmt: skip


@pytest.mark.parametrize(("records", "seen", "joined"), CASES.values(), ids=CASES.keys())
def test_an_event_belongs_to_the_packet_in_the_hook(records, seen, joined):
    journey = Journey(0, records=list(records))
    join([journey], [seen])
    assert [event for _, event in journey.own] == [seen] * joined


def test_only_the_first_event_behind_a_sight_is_that_packets():
    journey = Journey(0, records=list(COMES))
    first, second = event(1003), event(1006)
    join([journey], [second, first])
    assert [event for _, event in journey.own] == [first]


def test_a_program_on_the_same_tracepoint_is_told_behind_ours():
    journey = Journey(0, records=list(LIFE))
    join([journey], [event(998, skb=A, target="netif_receive_skb", **POINT)])
    assert journey.own[0][0] == 1000 * US
