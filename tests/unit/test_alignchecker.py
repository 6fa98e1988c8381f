"""Every structure of lab/layouts lies in memory as clang laid out its C twin."""

import shutil

import pytest

from lab.datapath.build import SOURCES, build
from lab.datapath.objects import maps_of
from lab.kernel.btf import read_object
from lab.layouts import core, events, flows
from lab.layouts.attach import OBJECTS
from lab.layouts.maps import MAPS, map_layout
from lab.layouts.records import Record

RECORDS = [
    kind
    for module in (core, flows, events)
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, Record) and kind is not Record and kind.C_NAME
]

pytestmark = pytest.mark.skipif(shutil.which("clang") is None, reason="clang is not installed")


@pytest.fixture(scope="module")
def objects():
    """Types of every object of bpf/: most are in the alignment object, the rest in its users."""
    paths = build(sorted(SOURCES.glob("*.c")))
    return [read_object(path).btf for path in paths]


def twin(objects, name):
    for btf in objects:
        try:
            return btf.struct(name)
        except KeyError:
            continue
    return None


def hidden(kind, member):
    """Whether a member of C lies in Python's padding, or is a second name of a field's place."""
    _, start, size = member
    places = [(8 * p.offset, 8 * p.size, p.is_padding) for p in kind.places()]
    inside = any(at <= start and start + size <= at + bits for at, bits, pad in places if pad)
    return inside or any(at == start for at, _, pad in places if not pad)


@pytest.mark.parametrize("kind", RECORDS, ids=lambda kind: kind.C_NAME)
def test_structure_is_laid_out_as_in_c(objects, kind):
    c = twin(objects, kind.C_NAME)
    assert c is not None, f"add CHECKED({kind.C_NAME}) to bpf/bpf_alignchecker.c"
    fields = {(p.name, 8 * p.offset, 8 * p.size) for p in kind.places() if not p.is_padding}
    members = {(member.name, member.bit_offset, member.bit_size) for member in c.members}
    assert fields <= members, f"not so in C: {fields - members}; C has {members - fields}"
    assert not [m for m in members - fields if not hidden(kind, m)], "C has more than Python"
    assert kind.size() == c.size
    covered = sum(place.size for place in kind.places())
    assert covered == c.size, "every byte of the structure is described"


@pytest.mark.parametrize("layout", MAPS, ids=lambda layout: layout.name)
def test_map_declared_in_c_has_the_sizes_of_its_layout(layout):
    paths = build([SOURCES / f"{name}.c" for name in OBJECTS])
    declared = [maps_of(path)[layout.name] for path in paths if layout.name in maps_of(path)]
    assert declared, "no object of bpf/ declares this map"
    if layout.key is None or layout.value is None:
        return  # nothing of it is shared
    key, value = layout.key.size(), layout.value.size()
    assert {(spec.key_size, spec.value_size) for spec in declared} == {(key, value)}


def test_every_map_in_c_has_a_layout():
    paths = build([SOURCES / f"{name}.c" for name in OBJECTS])
    declared = {name for path in paths for name in maps_of(path)}
    assert not [name for name in declared if map_layout(name) is None]
