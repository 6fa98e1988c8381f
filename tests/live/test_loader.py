"""Objects are loaded as on a node: shared maps, private tail calls, atomic exchange."""

import json
import os
import re
import socket
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from bpffs import detached_bpffs
from live.objects import COUNTER, REFUSED, compiled

from lab.datapath import objects
from lab.datapath.build import build_objects
from lab.errors import InputError, KernelError, VerifierError
from lab.kernel import process
from lab.kernel.bpf import Program
from lab.kernel.bpfmap import BpfMap
from lab.kernel.netns import NetworkNamespace
from lab.layouts.attach import OBJECTS, AttachPoint, Hook, Role, Side, private_pins
from lab.waiting import eventually

pytestmark = pytest.mark.live

ENTRY = AttachPoint(Hook.FROM_CONTAINER, Role.LXC, Side.INGRESS, "counter", "cil_from_container")
SLOT_7 = struct.pack("<I", 7)


def bpftool(*words):
    return json.loads(process.run(["bpftool", "-j", *map(str, words)]).stdout)


@pytest.fixture
def bpffs():
    with detached_bpffs() as path:
        yield path


@pytest.fixture(scope="module")
def counter(tmp_path_factory):
    return compiled(tmp_path_factory.mktemp("counter"), "counter", COUNTER)


def load(path, bpffs, endpoint=1000, ifindex=10):
    pins = private_pins(Role.LXC, endpoint_id=endpoint, ifindex=ifindex)
    config = {"endpoint_id": endpoint, "interface_ifindex": ifindex}
    return objects.load(path, config=config, bpffs=bpffs, pins=pins)


def pins(bpffs):
    return sorted(path.name for path in (bpffs / "tc/globals").iterdir())


def test_two_endpoints_share_the_nodes_maps_and_have_tail_calls_of_their_own(counter, bpffs):
    with load(counter, bpffs, 1000) as one, load(counter, bpffs, 1001) as two:
        one.publish()
        two.publish()
        assert one.map_ids["counters"] == two.map_ids["counters"]
        assert one.map_ids["cilium_calls"] != two.map_ids["cilium_calls"]
    assert pins(bpffs) == [
        "cilium_call_policy",
        "cilium_calls_01000",
        "cilium_calls_01001",
        "counters",
    ]


def test_slots_hold_the_programs_their_tags_name(counter, bpffs):
    with load(counter, bpffs, 1000) as loaded:
        loaded.publish()
        ids = loaded.program_ids
        calls = bpftool("map", "dump", "pinned", bpffs / "tc/globals/cilium_calls_01000")
        policy = bpftool("map", "dump", "pinned", bpffs / "tc/globals/cilium_call_policy")
    filled = [(e["formatted"]["key"], e["formatted"]["value"]) for e in calls + policy]
    assert filled == [(7, ids["second_half"]), (1000, ids["handle_policy"])]


def test_nothing_of_an_endpoint_is_callable_before_it_is_published(counter, bpffs):
    with load(counter, bpffs, 1000):
        with BpfMap.from_pin(bpffs / "tc/globals/cilium_call_policy") as policy:
            assert policy.lookup(struct.pack("<I", 1000)) is None
        assert "cilium_calls_01000" not in pins(bpffs)


def test_withdrawing_leaves_the_nodes_maps_only(counter, bpffs):
    with load(counter, bpffs, 1000) as loaded:
        loaded.publish()
        loaded.withdraw()
        assert pins(bpffs) == ["cilium_call_policy", "counters"]
        assert loaded.loaded.maps["cilium_call_policy"].lookup(struct.pack("<I", 1000)) is None


def test_constants_reach_the_program(counter, bpffs):
    with load(counter, bpffs, 1234) as loaded:
        with Program.from_id(loaded.program_ids["second_half"]) as program:
            context = program.test_run(bytes(60), bytes(192)).context
        assert struct.unpack_from("<I", context, 8) == (1234,)


WRONG = {
    "an unknown name gets a suggestion": ({"endpont_id": 1}, "did you mean endpoint_id"),
    "a number too big for its constant": ({"endpoint_id": 1 << 16}, "does not fit the 2 bytes"),
    "bytes too few for their constant": ({"interface_ifindex": b"12"}, "has 4 bytes, got 2"),
}


@pytest.mark.parametrize(("config", "words"), WRONG.values(), ids=WRONG.keys())
def test_wrong_constants_are_refused(counter, bpffs, config, words):
    with pytest.raises(InputError, match=words):
        objects.load(counter, config={"endpoint_id": 1, **config}, bpffs=bpffs, pins={})


def test_a_refused_program_is_shown_with_its_c_line(tmp_path, bpffs):
    path = compiled(tmp_path / "c", "refused", REFUSED)
    with pytest.raises(VerifierError) as caught:
        load_plain(path, bpffs)
    message = caught.value.message
    assert "refused cil_from_container" in message
    assert re.search(r"at refused\.c:\d+ `return \*value;`", message)
    assert "R0 invalid mem access 'map_value_or_null'" in message
    assert pins(bpffs) == ["numbers"], "the node's maps stay, nothing else is left"


def load_plain(path, bpffs):
    return objects.load(path, config={}, bpffs=bpffs, pins={"cilium_calls": "cilium_calls_x"})


def test_nothing_is_said_on_stderr(tmp_path, bpffs, capfd):
    path = compiled(tmp_path / "c", "refused", REFUSED)
    with pytest.raises(VerifierError):
        load_plain(path, bpffs)
    assert capfd.readouterr().err == ""


def test_a_map_whose_declaration_changed_is_made_anew(tmp_path, bpffs):
    small = compiled(tmp_path / "a", "refused", REFUSED)
    large = compiled(tmp_path / "b", "refused", REFUSED.replace("max_entries, 8", "max_entries, 9"))
    objects.ensure_maps(bpffs, [small])
    with BpfMap.from_pin(bpffs / "tc/globals/numbers") as before:
        objects.ensure_maps(bpffs, [large])
        with BpfMap.from_pin(bpffs / "tc/globals/numbers") as after:
            assert (before.spec.max_entries, after.spec.max_entries) == (8, 9)
            assert before.id != after.id
            before.update(struct.pack("<I", 1), bytes(8))  # its users still have it


def test_maps_survive_a_second_start(tmp_path, bpffs):
    path = compiled(tmp_path / "a", "refused", REFUSED)
    objects.ensure_maps(bpffs, [path])
    with BpfMap.from_pin(bpffs / "tc/globals/numbers") as numbers:
        numbers.update(struct.pack("<I", 1), struct.pack("<Q", 42))
    objects.ensure_maps(bpffs, [path])
    with BpfMap.from_pin(bpffs / "tc/globals/numbers") as numbers:
        assert numbers.lookup(struct.pack("<I", 1)) == struct.pack("<Q", 42)


def test_a_folder_that_is_no_bpffs_is_a_clear_error(counter, tmp_path):
    with pytest.raises(KernelError) as caught:
        load(counter, tmp_path)
    assert "mount -t bpf" in caught.value.hint


def test_loads_in_parallel_threads_agree_on_the_nodes_maps(counter, bpffs):
    with ThreadPoolExecutor(4) as pool:
        loads = list(pool.map(lambda n: load(counter, bpffs, 1000 + n), range(12)))
    try:
        with BpfMap.from_pin(bpffs / "tc/globals/counters") as pinned:
            assert {made.map_ids["counters"] for made in loads} == {pinned.id}
    finally:
        for made in loads:
            made.close()


def test_an_exported_object_is_the_loaded_one(counter, bpffs, tmp_path):
    target = tmp_path / "exported.o"
    objects.export(counter, {"endpoint_id": 1234, "interface_ifindex": 99}, target)
    folder = bpffs / "exported"
    process.run(["bpftool", "prog", "loadall", str(target), str(folder), "type", "classifier"])
    with load(counter, bpffs, 1234, 99) as loaded:
        mine = {name: tag_of(number) for name, number in loaded.program_ids.items()}
        theirs = {p.name: bpftool("prog", "show", "pinned", p)["tag"] for p in folder.iterdir()}
        assert mine == theirs
        shown = bpftool("prog", "show", "pinned", folder / "second_half")
        constants = [BpfMap.from_id(number) for number in shown["map_ids"]]
        content = [m.lookup(bytes(4)) for m in constants if m.name.endswith(".rodata")]
        number = next(n for name, n in loaded.map_ids.items() if name.endswith(".rodata"))
        with BpfMap.from_id(number) as own:
            assert content == [own.lookup(bytes(4))]
        for bpf_map in constants:
            bpf_map.close()


def tag_of(number):
    with Program.from_id(number) as program:
        return program.info().tag


@pytest.fixture
def wire():
    """A veth pair in a namespace of its own: (namespace, index of the watched end, other end)."""
    space = NetworkNamespace.create("wire")
    with space.entered():
        process.run(["ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1"])
        for name in ("v0", "v1"):
            process.run(["ip", "link", "set", name, "addrgenmode", "none", "up"])
        yield space, socket.if_nametoindex("v0"), "v1"
    space.close()


def test_programs_are_exchanged_without_losing_a_packet(counter, bpffs, wire):
    space, ifindex, peer = wire
    exchanges, stop, sent = 20, threading.Event(), []
    frame = bytes.fromhex("ffffffffffff 020000000001 88b5") + bytes(46)

    def send():
        with space.entered():
            raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        with raw:
            raw.bind((peer, 0))
            while not stop.is_set():
                sent.append(raw.send(frame))

    current = load(counter, bpffs, 1000, ifindex)
    objects.replace(current, None, [ENTRY], ifindex)
    sender = threading.Thread(target=send)
    sender.start()
    for _ in range(exchanges):
        following = load(counter, bpffs, 1000, ifindex)
        objects.replace(following, current, [ENTRY], ifindex)
        current = following
    stop.set()
    sender.join()
    with current, BpfMap.from_id(current.map_ids["counters"]) as counters:

        def counted():
            return [struct.unpack("<Q", counters.lookup(struct.pack("<I", n)))[0] for n in (0, 1)]

        eventually(lambda: sum(counted()) >= len(sent), what="all packets counted")
        assert counted() == [len(sent), 0], "second halves, missed tail calls"
        assert len(sent) > 100 * exchanges, "packets were under way during every exchange"
    assert pins(bpffs) == ["cilium_call_policy", "cilium_calls_01000", "counters"]


def test_every_object_of_the_datapath_loads_and_fills_its_slots(bpffs):
    for name, path in build_objects(OBJECTS).items():
        role = {"bpf_lxc": Role.LXC, "bpf_overlay": Role.OVERLAY}.get(name, Role.NATIVE)
        xdp = name == "bpf_xdp"
        chosen = private_pins(role, endpoint_id=7, ifindex=2, xdp=xdp)
        with objects.load(path, config={"endpoint_id": 7}, bpffs=bpffs, pins=chosen) as loaded:
            loaded.publish()
            for call in loaded.calls:
                value = loaded.loaded.maps[call.map].lookup(struct.pack("<I", call.slot))
                found = struct.unpack("<I", value)[0]
                assert found == loaded.program_ids[call.program]


def test_a_published_endpoint_needs_no_descriptor(counter, bpffs, wire):
    _, ifindex, _ = wire
    before = len(list(Path("/proc/self/fd").iterdir()))
    loaded = load(counter, bpffs, 1000, ifindex)
    assert len(list(Path("/proc/self/fd").iterdir())) - before <= 5
    objects.replace(loaded, None, [ENTRY], ifindex)
    number = loaded.program_ids["second_half"]
    loaded.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    calls = bpffs / "tc/globals/cilium_calls_01000"
    with BpfMap.from_pin(calls) as slots:
        assert slots.lookup(SLOT_7) == struct.pack("<I", number)


def test_the_build_cache_on_a_full_disk_is_a_clear_error(tmp_path):
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from lab.datapath.build import build_objects\n"
        "from lab.errors import PrerequisiteError\n"
        "try:\n"
        "    build_objects(['bpf_lxc'])\n"
        "except PrerequisiteError as error:\n"
        "    print(error)\n"
        "print(os.listdir(os.environ['LAB_CACHE_DIR']))\n"
    )
    tiny = tmp_path / "tiny"
    tiny.mkdir()
    line = f'mount -t tmpfs -o size=8k tmpfs {tiny} && exec python3 -c "$0"'
    environment = {**os.environ, "LAB_CACHE_DIR": str(tiny), "PYTHONPATH": str(Path.cwd())}
    done = process.run(["unshare", "-m", "sh", "-c", line, script], env=environment)
    assert "No space left on device" in done.stdout
    assert "LAB_CACHE_DIR" in done.stdout
    assert done.stdout.endswith("[]\n"), "nothing half-written"
