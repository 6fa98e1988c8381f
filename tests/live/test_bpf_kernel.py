"""Maps, rings and hooks as the kernel sees them, with bpftool and ip as witnesses."""

import json
import os
import socket
import struct
from pathlib import Path

import pytest
from bpffs import detached_bpffs
from live.objects import COUNTER, MAPS, compiled

from lab.errors import KernelError
from lab.kernel import bpfattach, cgroup, process, tcx, tracing
from lab.kernel.bpf import Program, ProgramType, load_object
from lab.kernel.bpfmap import BpfMap, MapSpec, MapType, possible_cpus
from lab.kernel.bpfring import PerfReader, RingReader
from lab.kernel.netns import NetworkNamespace

pytestmark = pytest.mark.live


def key(number):
    return struct.pack("<I", number)


def word(number):
    return struct.pack("<Q", number)


def dump(bpf_map):
    """What bpftool reads in the same map: key and value bytes."""
    entries = json.loads(
        process.run(["bpftool", "-j", "map", "dump", "id", str(bpf_map.id)]).stdout
    )

    def octets(hexes):
        return bytes(int(one, 16) for one in hexes)

    return {octets(e["key"]): octets(e["value"]) for e in entries}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    path = compiled(tmp_path_factory.mktemp("maps"), "maps", MAPS)
    with load_object(path, default_type=ProgramType.XDP) as made:
        yield made


def test_many_entries_in_and_out_agree_with_bpftool(loaded):
    table = loaded.maps["hash"]
    table.update_many([(key(n), word(n * n)) for n in range(3000)])
    assert dict(table.items()) == {key(n): word(n * n) for n in range(3000)}
    assert dict(table.items()) == dump(table)
    assert table.clear() == 3000
    assert table.items() == []


def test_an_absent_key_is_none_and_deleting_it_says_so(loaded):
    table = loaded.maps["hash"]
    assert table.lookup(key(77)) is None
    assert not table.delete(key(77))
    table.update(key(77), word(1))
    assert table.delete(key(77))


def test_each_cpu_has_its_own_value(loaded):
    table = loaded.maps["percpu"]
    table.update(key(1), struct.pack("<I", 5))
    assert table.lookup_percpu(key(1)) == (struct.pack("<I", 5),) * possible_cpus()
    ((_, raw),) = table.items()
    assert table.split_percpu(raw) == table.lookup_percpu(key(1))


def test_a_trie_answers_with_the_longest_prefix(loaded):
    trie = loaded.maps["trie"]
    trie.update(struct.pack("<I4s", 8, bytes([10, 0, 0, 0])), b"\1")
    trie.update(struct.pack("<I4s", 24, bytes([10, 0, 1, 0])), b"\2")
    assert trie.lookup(struct.pack("<I4s", 32, bytes([10, 0, 1, 9]))) == b"\2"
    assert trie.lookup(struct.pack("<I4s", 32, bytes([10, 9, 9, 9]))) == b"\1"
    assert trie.lookup(struct.pack("<I4s", 32, bytes([11, 0, 0, 0]))) is None
    assert dict(trie.items()) == dump(trie)


REFUSED = {
    "a key of the wrong size": (lambda m: m.lookup(b"12"), "a key has 4 bytes, got 2"),
    "a value of the wrong size": (lambda m: m.update(key(1), b"1"), "a value has 8 bytes, got 1"),
    "an entry that must be new but is not": (
        lambda m: (m.update(key(1), word(1)), m.update(key(1), word(1), flags=1)),
        "EEXIST",
    ),
    "deleting from an array": (None, "EINVAL"),
}


@pytest.mark.parametrize(("action", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_the_kernel_refuses_is_named(loaded, action, words):
    with pytest.raises(KernelError, match=words) as caught:
        if action:
            action(loaded.maps["hash"])
        else:
            loaded.maps["array"].delete(key(0))
    assert caught.value.hint


def test_a_full_map_says_so():
    with BpfMap.create("tiny", MapSpec(MapType.HASH, 4, 8, 2, 0)) as tiny:
        for number in range(2):
            tiny.update(key(number), word(0))
        with pytest.raises(KernelError, match="E2BIG") as caught:
            tiny.update(key(2), word(0))
    assert "full" in caught.value.hint


def test_a_frozen_map_takes_no_more():
    with BpfMap.create("frozen", MapSpec(MapType.ARRAY, 4, 8, 2, 0)) as frozen:
        frozen.freeze()
        with pytest.raises(KernelError, match="EPERM"):
            frozen.update(key(0), word(1))


def test_a_pin_is_replaced_in_one_step():
    with detached_bpffs() as bpffs, BpfMap.create("m", MapSpec(MapType.ARRAY, 4, 8, 1, 0)) as one:
        one.pin(bpffs / "m")
        with BpfMap.create("m", MapSpec(MapType.ARRAY, 4, 8, 1, 0)) as two:
            two.pin(bpffs / "m")
            with BpfMap.from_pin(bpffs / "m") as pinned:
                assert pinned.id == two.id
        assert [path.name for path in bpffs.glob("m*") if path.suffix == ""] == ["m"]


def test_closing_leaves_no_descriptor_open(tmp_path):
    path = compiled(tmp_path, "counter", COUNTER)
    load_object(path, default_type=ProgramType.SCHED_CLS).close()
    before = len(list(Path("/proc/self/fd").iterdir()))
    load_object(path, default_type=ProgramType.SCHED_CLS).close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_both_rings_deliver_what_a_program_wrote(loaded):
    with PerfReader(loaded.maps["events"]) as perf, RingReader(loaded.maps["ring"]) as ring:
        assert loaded.programs["speak"].test_run(bytes(60)).return_code == 2
        (one,), (two,) = perf.read(wait_ms=1000), ring.read(wait_ms=1000)
    assert one.data[:8] == two.data == word(0x1122334455667788)
    assert (one.cpu in range(possible_cpus()), two.cpu) == (True, -1)


def test_a_reader_outlives_the_map_it_was_opened_with(loaded):
    with BpfMap.from_id(loaded.maps["events"].id) as opened:
        perf = PerfReader(opened)
    with perf:
        loaded.programs["speak"].test_run(bytes(60))
        assert len(perf.read(wait_ms=1000)) == 1


@pytest.fixture
def one_cpu():
    """A processor's ring tells its losses with its own next record: stay on one."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


def test_records_that_found_no_room_are_counted(loaded, one_cpu):
    with PerfReader(loaded.maps["events"], pages=1) as perf:
        loaded.programs["speak"].test_run(bytes(60), repeat=1000)
        first = perf.read()
        loaded.programs["speak"].test_run(bytes(60))
        rest = perf.read()
        assert perf.lost > 0
        assert len(first) + len(rest) + perf.lost == 1001


def test_an_empty_ring_returns_at_its_deadline(loaded):
    with PerfReader(loaded.maps["events"]) as perf:
        assert perf.read(wait_ms=5) == ()


@pytest.fixture
def device():
    space = NetworkNamespace.create("hooks")
    with space.entered():
        process.run(["ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1"])
        yield socket.if_nametoindex("v0")
    space.close()


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    path = compiled(tmp_path_factory.mktemp("tc"), "counter", COUNTER)
    with load_object(path, default_type=ProgramType.SCHED_CLS) as made:
        yield made.programs["cil_from_container"]


@pytest.mark.parametrize("side", list(bpfattach.Direction), ids=lambda side: side.name.lower())
def test_tc_shows_what_was_attached(device, classifier, side):
    bpfattach.attach_tc(classifier, device, side)
    bpfattach.attach_tc(classifier, device, side)  # replaces, does not add
    number = classifier.info().id
    assert bpfattach.query_tc(device, side) == number
    shown = process.run(["tc", "filter", "show", "dev", "v0", side.name.lower()]).stdout
    assert shown.count(f"id {number} ") == 1
    assert "pref 1 bpf chain 0 handle 0x1" in shown
    assert "direct-action" in shown
    assert bpfattach.detach_tc(device, side)
    assert not bpfattach.detach_tc(device, side)
    assert bpfattach.query_tc(device, side) is None


@pytest.mark.parametrize("side", list(bpfattach.Direction), ids=lambda side: side.name.lower())
def test_without_clsact_one_program_replaces_another_and_a_tracers_link_is_none(
    device, classifier, tmp_path, side
):
    if not tcx.attach(classifier, device, side):
        pytest.skip("this kernel (before 6.6) has no tcx")
    path = compiled(tmp_path, "counter", COUNTER)
    with load_object(path, default_type=ProgramType.SCHED_CLS) as another:
        program = another.programs["cil_from_container"]
        assert [tcx.attach(program, device, side) for _ in range(2)] == [True, True]
        number = program.info().id
        with tracing.attach_tcx(classifier, device, side):
            assert tcx.query(device, side) == number
    assert "clsact" not in process.run(["tc", "qdisc", "show", "dev", "v0"]).stdout


@pytest.mark.parametrize("mode", list(bpfattach.XdpMode), ids=lambda mode: mode.name.lower())
def test_ip_shows_the_xdp_program(device, loaded, mode):
    program = loaded.programs["speak"]
    bpfattach.attach_xdp(program, device, mode)
    (shown,) = json.loads(process.run(["ip", "-j", "link", "show", "v0"]).stdout)
    assert shown["xdp"]["prog"]["id"] == program.info().id == bpfattach.query_xdp(device)
    assert shown["xdp"]["mode"] == {"GENERIC": 2, "NATIVE": 1}[mode.name]
    bpfattach.detach_xdp(device, mode)
    assert bpfattach.query_xdp(device) is None


def test_an_interface_that_is_not_here_is_a_clear_error(device, classifier):
    with pytest.raises(KernelError, match="interface 4242") as caught:
        bpfattach.attach_tc(classifier, 4242, bpfattach.Direction.INGRESS)
    assert caught.value.hint


def test_a_cgroup_link_ends_with_its_owner(loaded):
    folder = cgroup.unified_root() / f"loader-test-{os.getpid()}"
    cgroup.create(folder)
    try:
        kind = bpfattach.AttachType.CGROUP_INET4_CONNECT
        with bpfattach.attach_cgroup(loaded.programs["refuse"], folder, kind):
            shown = process.run(["bpftool", "-j", "cgroup", "show", str(folder)]).stdout
            assert [p["id"] for p in json.loads(shown)] == [loaded.programs["refuse"].info().id]
        assert process.run(["bpftool", "-j", "cgroup", "show", str(folder)]).stdout.strip() in (
            "",
            "[]",
        )
    finally:
        cgroup.remove(folder)


def test_a_folder_that_is_no_cgroup_is_refused(loaded, tmp_path):
    kind = bpfattach.AttachType.CGROUP_INET4_CONNECT
    with pytest.raises(KernelError, match="refuse to cgroup"):
        bpfattach.attach_cgroup(loaded.programs["refuse"], tmp_path, kind)


def test_programs_are_found_again_by_id_and_pin(classifier):
    with detached_bpffs() as bpffs:
        classifier.pin(bpffs / "entry")
        with Program.from_pin(bpffs / "entry") as one, Program.from_id(one.info().id) as two:
            assert one.info().tag == two.info().tag == classifier.info().tag


def test_an_absent_pin_is_named():
    with pytest.raises(KernelError, match="/nowhere/map"):
        BpfMap.from_pin(Path("/nowhere/map"))
