"""How benchmarks measure in turns, keep what they have, and tell how long they will take."""

import io

import pytest

from tests.bench._stock import Stock
from tests.bench._turns import Progress, duration, in_turns


class Clock:
    """Seconds that pass when told."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Table:
    """What a stock needs of a map of the kernel."""

    def __init__(self, *keys):
        self.entries = dict.fromkeys(keys, b"v")

    def items(self):
        return list(self.entries.items())

    def delete(self, key):
        return self.entries.pop(key, None) is not None

    def update_many(self, items):
        self.entries.update(items)


def test_every_path_is_measured_once_a_round_and_the_first_round_does_not_count():
    calls, found = [], {}
    paths = {name: lambda name=name: calls.append(name) or len(calls) for name in "abc"}
    in_turns(paths, 5, found)
    assert [sorted(calls[at : at + 3]) for at in range(0, 18, 3)] == [list("abc")] * 6
    assert {name: len(values) for name, values in found.items()} == {"a": 5, "b": 5, "c": 5}
    assert min(min(values) for values in found.values()) > 3


def test_the_order_is_another_one_from_round_to_round():
    calls = []
    in_turns({name: lambda name=name: calls.append(name) or 0.0 for name in "abcdef"}, 9, {})
    assert len({tuple(calls[at : at + 6]) for at in range(0, 60, 6)}) > 5


def test_an_interruption_leaves_whole_rounds():
    left, found = iter(range(11)), {}

    def measure():
        if next(left, None) is None:
            raise KeyboardInterrupt
        return 1.0

    with pytest.raises(KeyboardInterrupt):
        in_turns({"a": measure, "b": measure}, 9, found)
    assert found == {"a": [1.0] * 4, "b": [1.0] * 4}


def test_what_is_left_follows_the_pace_of_what_is_over():
    clock = Clock()
    progress = Progress({"a": 10, "b": 10, "c": 20}, io.StringIO(), clock)
    progress.part("a")
    assert progress.left_s() == 40
    clock.now = 30.0
    progress.part("b")
    assert progress.left_s() == 60, "three times as slow, of which half is believed"
    clock.now = 40.0
    assert progress.left_s() == 50
    assert progress.left_s(3) == 43, "this part knows better"


def test_a_file_gets_a_line_for_another_subject_and_every_few_seconds():
    clock, told = Clock(), io.StringIO()
    progress = Progress({"a": 100}, told, clock)
    for second in (0.0, 1.0, 2.0, 6.0):
        clock.now = second
        progress.tell(f"a, round {second:.0f}")
    progress.tell("b")
    assert [line.rpartition(", about")[0] for line in told.getvalue().splitlines()] == [
        "a, round 0",
        "a, round 6",
        "b",
    ]


def test_a_terminal_sees_one_line_that_goes_away():
    told = Terminal()
    progress = Progress({}, told, Clock())
    progress.tell("a, round 1")
    progress.tell("a, round 2")
    progress.clear()
    assert "\n" not in told.getvalue()
    assert told.getvalue().split("\r")[-1] == "\x1b[K"


WORDS = {"a moment": (0.2, "5 s"), "under a minute": (48, "50 s"), "minutes": (200, "3 min")}


@pytest.mark.parametrize(("seconds", "words"), WORDS.values(), ids=WORDS.keys())
def test_duration(seconds, words):
    assert duration(seconds) == words


def test_a_stock_is_there_in_any_share_and_what_was_there_before_always():
    first, second = Table(b"x"), Table()
    stock = Stock(first, second)
    first.update_many([(bytes([n]), b"v") for n in range(100)])
    second.update_many([(bytes([n]), b"v") for n in range(50)])
    stock.learn()
    for share in (0.1, 1.0, 0.5, 0.0):
        stock.set_share(share)
        assert (len(first.entries), len(second.entries)) == (1 + 100 * share, 50 * share)
        assert b"x" in first.entries


def test_another_part_of_a_stock_is_there_each_time():
    table = Table()
    stock = Stock(table)
    stock.give([(bytes([n]), b"v") for n in range(100)])
    seen = set()
    for _ in range(8):
        stock.set_share(0.1)
        seen.add(frozenset(table.entries))
    assert len(seen) == 8
