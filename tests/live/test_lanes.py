"""Records in shared memory: whole ones, once each, in order, and no word of those not finished."""

import mmap
import struct

import pytest

from lab.kernel.lanes import Lanes

pytestmark = pytest.mark.live

RECORD = 16
LANE_WORDS = 16
BEGUN, LOST, TAKEN = 0, 1, 8


class Writer:
    """One processor's probes, as bpf/probes/record.h has them write, through the maps alone."""

    def __init__(self, lanes, cpu):
        maps = lanes.maps
        sizes = {name: m.spec.value_size * m.spec.max_entries for name, m in maps.items()}
        pages = {name: -(-size // mmap.PAGESIZE) * mmap.PAGESIZE for name, size in sizes.items()}
        shared = {
            name: memoryview(mmap.mmap(maps[name].fd, pages[name])).cast("Q") for name in maps
        }
        self.lane = shared["trace_lanes"][cpu * LANE_WORDS : (cpu + 1) * LANE_WORDS]
        words = lanes.records * RECORD // 8
        self.words = shared["trace_records"][cpu * words : (cpu + 1) * words]
        self.places = lanes.records

    def begin(self, value):
        number = self.lane[BEGUN]
        if number - self.lane[TAKEN] >= self.places:
            self.lane[LOST] += 1
            return None
        self.lane[BEGUN] = number + 1
        place = number % self.places * 2
        self.words[place : place + 2] = memoryview(struct.pack("QQ", number, value)).cast("Q")
        return number

    def end(self, number):
        self.words[number % self.places * 2] += 1

    def write(self, *values):
        for value in values:
            number = self.begin(value)
            if number is not None:
                self.end(number)


@pytest.fixture
def lanes():
    with Lanes(RECORD, 1 << 12) as lanes:
        yield lanes


def values(lanes):
    taken = b"".join(lanes.take())
    return [value for _, value in struct.iter_unpack("QQ", taken)]


def test_records_come_once_in_their_order(lanes):
    writer = Writer(lanes, 0)
    writer.write(7, 8, 9)
    assert (values(lanes), values(lanes), lanes.lost()) == ([7, 8, 9], [], 0)


def test_each_processor_has_its_lane(lanes):
    Writer(lanes, 1).write(1, 2)
    Writer(lanes, 0).write(3)
    assert sorted(values(lanes)) == [1, 2, 3]


def test_an_unfinished_record_holds_back_what_is_behind_it(lanes):
    writer = Writer(lanes, 0)
    writer.write(1)
    number = writer.begin(2)
    writer.write(3)
    assert values(lanes) == [1]
    writer.end(number)
    assert values(lanes) == [2, 3]


def test_many_laps_lose_nothing_that_is_read_in_time(lanes):
    writer = Writer(lanes, 0)
    seen = []
    for start in range(0, 5 * lanes.records, 100):
        writer.write(*range(start, start + 100))
        seen += values(lanes)
    assert (seen, lanes.lost()) == (list(range(len(seen))), 0)
    assert len(seen) >= 5 * lanes.records


def test_a_full_lane_keeps_what_it_has_and_counts_the_rest(lanes):
    writer = Writer(lanes, 0)
    writer.write(*range(lanes.records + 3))
    assert (values(lanes), lanes.lost()) == (list(range(lanes.records)), 3)
    writer.write(99)
    assert (values(lanes), lanes.lost()) == ([99], 3)
