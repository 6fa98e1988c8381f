"""Garbage whose flow comes back to life while it is being collected.

The maps are the kernel's; where the packet comes in between is made certain: what it does to the
map is done between two of the collector's own system calls.
"""

from ipaddress import IPv4Address

import pytest

from lab.agent import garbage
from lab.kernel.bpfmap import BpfMap, MapSpec, MapType
from lab.layouts.core import LIVES, Index, Word
from lab.layouts.flows import CtEntry, NatEntry, Tuple4, TupleFlag
from tests.bpffs import detached_bpffs

pytestmark = pytest.mark.live

CT, NAT, WORDS = "cilium_ct_any4_global", garbage.NAT_MAP, "cilium_runtime_config"
POD, WORLD, NODE = (IPv4Address(a) for a in ("10.0.1.10", "203.0.113.10", "172.30.0.1"))
NOW = 1000.0
# conntrack's keys are those of the answers, addresses swapped, ports in true order
FLOW = Tuple4(daddr=POD, saddr=WORLD, sport=4000, dport=53, nexthdr=17, flags=TupleFlag.OUT)
DEAD, ALIVE = CtEntry(lifetime=900, tx_packets=1), CtEntry(lifetime=1060, tx_packets=2)
ANEW = CtEntry(lifetime=1060, tx_packets=1)
OUT = Tuple4(daddr=WORLD, saddr=POD, sport=4000, dport=53, nexthdr=17, flags=TupleFlag.OUT)
BACK = Tuple4(daddr=NODE, saddr=WORLD, sport=53, dport=5000, nexthdr=17, flags=TupleFlag.IN)
TO_NODE, TO_POD = NatEntry(to_addr=NODE, to_port=5000), NatEntry(to_addr=POD, to_port=4000)


@pytest.fixture
def maps(monkeypatch):
    """The maps of a node that concern the collector, by name."""
    specs = {
        "cilium_ct4_global": MapSpec(MapType.LRU_HASH, 14, 56, 64, 0),
        CT: MapSpec(MapType.LRU_HASH, 14, 56, 64, 0),
        NAT: MapSpec(MapType.LRU_HASH, 14, 40, 64, 0),
        WORDS: MapSpec(MapType.ARRAY, 4, 8, 16, 0),
    }
    with detached_bpffs() as folder:
        monkeypatch.setattr(garbage, "globals_dir", lambda _: str(folder))
        made = {name: BpfMap.create(name, spec) for name, spec in specs.items()}
        for name, table in made.items():
            table.pin(folder / name)
        yield made
        for table in made.values():
            table.close()


@pytest.fixture
def interrupt(monkeypatch):
    """Let something happen once, before or after a system call of the collector on one map."""

    def between(call, name, happens, *, after=False):
        real, todo = getattr(BpfMap, call), [happens]

        def interrupted(self, *arguments):
            mine = self.name == name
            if mine and not after and todo:
                todo.pop()()
            result = real(self, *arguments)
            if mine and after and todo:
                todo.pop()()
            return result

        monkeypatch.setattr(BpfMap, call, interrupted)

    return between


def removed(maps, name):
    slot = LIVES[name][1]
    return Word.unpack(maps[WORDS].lookup(Index(index=slot).pack())).value


RACES = {
    "nobody comes": (None, False, None, None),
    "after the listing": ("items", True, ALIVE, ALIVE),
    "after the second look": ("take", False, ALIVE, ALIVE),
    "after the deletion, making it anew": ("take", True, ANEW, ANEW),
}


@pytest.mark.parametrize(("call", "after", "packet", "left"), RACES.values(), ids=RACES.keys())
def test_a_flow_that_a_packet_prolongs_stays(maps, interrupt, call, after, packet, left):
    maps[CT].update(FLOW.pack(), DEAD.pack())
    if call:
        interrupt(call, CT, lambda: maps[CT].update(FLOW.pack(), packet.pack()), after=after)
    swept = garbage.collect_conntrack("alpha", NOW)
    found = maps[CT].lookup(FLOW.pack())
    assert (found and CtEntry.unpack(found)) == left
    # one that was made anew is another entry, and the old one is gone
    assert swept.deleted == removed(maps, CT) == int(left in (None, ANEW))


NAT_RACES = {
    "after the listing": ("items", False),
    "after the second look at the way out": ("take", False),
    "after the deletion of the way out": ("take", True),
}


@pytest.mark.parametrize(("call", "after"), NAT_RACES.values(), ids=NAT_RACES.keys())
def test_a_translation_stays_when_its_flow_comes_back(maps, interrupt, call, after):
    for key, value in ((BACK, TO_POD), (OUT, TO_NODE)):
        maps[NAT].update(key.pack(), value.pack())
    interrupt(call, NAT, lambda: maps[CT].update(FLOW.pack(), ALIVE.pack()), after=after)
    swept = garbage.collect_nat("alpha", NOW)
    left = {key: NatEntry.unpack(value) for key, value in maps[NAT].items()}
    assert left == {BACK.pack(): TO_POD, OUT.pack(): TO_NODE}
    assert swept.deleted == removed(maps, NAT) == 0


def test_a_translation_without_flow_goes_both_ways(maps):
    for key, value in ((BACK, TO_POD), (OUT, TO_NODE)):
        maps[NAT].update(key.pack(), value.pack())
    assert garbage.collect_nat("alpha", NOW).deleted == removed(maps, NAT) == 2
    assert maps[NAT].items() == []


def test_the_way_back_is_the_last_to_go(maps, interrupt):
    """A flow that comes back to life in between finds its port by it."""
    for key, value in ((BACK, TO_POD), (OUT, TO_NODE)):
        maps[NAT].update(key.pack(), value.pack())
    seen = []
    interrupt("take", NAT, lambda: seen.extend(maps[NAT].items()), after=True)
    garbage.collect_nat("alpha", NOW)
    assert [key for key, _ in seen] == [BACK.pack()]
