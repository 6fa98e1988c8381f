"""Policy entries into a map of the kernel: which are written, in which order, what does not fit."""

import pytest

from lab.agent.policies import Difference, add_entries, remove_others
from lab.errors import KernelError
from lab.kernel.bpfmap import BpfMap, MapSpec, MapType
from lab.policy.entries import EntryKey, pack_value, unpack_value
from tests.bpffs import detached_bpffs

pytestmark = pytest.mark.live

ROOM = 8
NO_PREALLOC = 1


@pytest.fixture
def pin():
    """A pinned policy map with room for eight entries."""
    with (
        detached_bpffs() as folder,
        BpfMap.create("policy", MapSpec(MapType.HASH, 8, 24, ROOM, NO_PREALLOC)) as policy,
    ):
        policy.pin(folder / "policy")
        yield folder / "policy"


def rules(*numbers, deny=False):
    return {EntryKey(number, egress=False): deny for number in numbers}


def present(pin):
    with BpfMap.from_pin(pin) as policy:
        return {EntryKey.unpack(k): unpack_value(v)[0] for k, v in policy.items()}


def test_only_the_difference_is_written_and_counters_go_on(pin):
    add_entries(pin, rules(1, 2))
    with BpfMap.from_pin(pin) as policy:
        counted = bytearray(pack_value(False, EntryKey(1, egress=False)))
        counted[8] = 42
        policy.update(EntryKey(1, egress=False).pack(), bytes(counted))
        assert add_entries(pin, rules(1, 2, 3)) == Difference(written=1, stale=0)
        assert policy.lookup(EntryKey(1, egress=False).pack()) == counted


def test_a_policy_takes_the_place_of_another_that_fills_the_map(pin):
    add_entries(pin, rules(*range(ROOM)))
    following = rules(*range(100, 100 + ROOM))
    assert add_entries(pin, following) == Difference(written=ROOM, stale=0)
    assert remove_others(pin, following) == 0
    assert present(pin) == following


def test_what_denied_stays_until_the_new_rules_are_there(pin):
    add_entries(pin, rules(1, 2, deny=True) | rules(3, 4, 5, 6, 7, 8))
    following = rules(10, 11, 12, 13, 14)
    add_entries(pin, following)
    assert present(pin) == following | rules(1, 2, deny=True)
    remove_others(pin, following)
    assert present(pin) == following


def test_more_entries_than_there_is_room_for_are_an_error(pin):
    with pytest.raises(KernelError, match=r"updating .* entries"):
        add_entries(pin, rules(*range(ROOM + 1)))
