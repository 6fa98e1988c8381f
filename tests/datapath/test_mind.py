"""The datapath's own mind: what it tells of its look-ups and decisions while it is armed."""

from contextlib import closing
from types import SimpleNamespace

import pytest

from lab.kernel.bpfring import RingReader
from lab.kernel.btf import read_object
from lab.layouts.attach import Hook
from lab.layouts.core import Index, Word
from lab.layouts.events import MindNote, MindRecord
from tests.datapath.scene import CLIENT, NEIGHBOUR, NODE, REMOTE, VIP, WORLD, Scene, tcp, udp

ARM, LOST = Index(index=3), Index(index=4)


@pytest.fixture(scope="module")
def words(scenes):
    """Names of kinds, programs and maps, as the object's types have them."""
    enums = read_object(scenes()._paths["bpf_lxc"]).btf.enums
    enums = enums() if callable(enums) else enums
    short = {"mind_kind": "MIND_", "mind_program": "MIND_PROGRAM_", "mind_map": "MIND_MAP_"}
    return {
        kind: {number: name.removeprefix(prefix) for name, number in enums[kind].items()}
        for kind, prefix in short.items()
    }


def think(scene, hook, packet, wanted=1, **context):
    """Run one packet with the datapath armed; return the records."""
    config = scene.map("cilium_runtime_config")
    with closing(RingReader(scene._maps["cilium_mind"])) as reader:
        config.update(ARM, Word(value=wanted))
        scene.run(hook, packet, **context)
        config.update(ARM, Word(value=0))
        return [thought(sample.data) for sample in reader.read()]


def thought(data):
    """One record as plain values, its note unfolded."""
    record = MindRecord.unpack(data)
    note = MindNote.unpack(record.note)
    values = {
        name: getattr(note, name) for name in ("kind", "what", "arg", "found", "key", "value")
    }
    return SimpleNamespace(ns=record.ns, skb=record.skb, **values)


def told(words, records):
    """Kind and subject of each record, in words."""
    subjects = {"ENTER": "mind_program", "LOOKUP": "mind_map"}
    lines = []
    for record in records:
        kind = words["mind_kind"][record.kind]
        table = words.get(subjects.get(kind, ""), {})
        lines.append(f"{kind} {table[record.what]}" if table else kind)
    return lines


def test_a_packets_thoughts_in_order(scene, words):
    records = think(scene, Hook.FROM_CONTAINER, udp(CLIENT, REMOTE))
    assert told(words, records) == [
        "ENTER FROM_CONTAINER",
        "TAIL_CALL",
        "ENTER HANDLE_IPV4",
        "SERVICE",
        "TAIL_CALL",
        "ENTER CT_EGRESS",
        "CT",
        "TAIL_CALL",
        "ENTER HANDLE_IPV4_CONT",
        "LOOKUP IPCACHE",
    ]
    assert [r.arg for r in records if words["mind_kind"][r.kind] == "TAIL_CALL"] == [7, 29, 25]


def test_with_fewer_tail_calls_the_same_questions_are_asked(words):
    asked = []
    for at_once in (False, True):
        with Scene(inline_tail_calls=at_once, enable_policy=True) as scene:
            for instance, egress in (("bpf_lxc", True), ("neighbour", False)):
                scene.allow(0, egress=egress, instance=instance)
            records = think(scene, Hook.FROM_CONTAINER, udp(CLIENT, NEIGHBOUR))
        lines = told(words, records)
        calls = [r.arg for r in records if words["mind_kind"][r.kind] == "TAIL_CALL"]
        asked.append(([line for line in lines if not line.startswith(("ENTER", "TAIL"))], calls))
    (one_by_one, all_calls), (at_once, fewer_calls) = asked
    assert at_once == one_by_one
    assert all_calls == [7, 29, 25, 267, 28, 11]
    assert fewer_calls == [267]


def test_all_records_name_one_buffer_and_rise_in_time(scene):
    records = think(scene, Hook.FROM_CONTAINER, udp(CLIENT, NEIGHBOUR))
    assert len({record.skb for record in records}) == 1
    assert records[0].skb >> 47, "a kernel address"
    assert [record.ns for record in records] == sorted(record.ns for record in records)


def test_disarmed_it_says_nothing(scene):
    assert think(scene, Hook.FROM_CONTAINER, udp(CLIENT, REMOTE), wanted=0) == []


SELECTED = {
    "its own source": (CLIENT, True),
    "its destination": (REMOTE, True),
    "others": (VIP, False),
}


@pytest.mark.parametrize(("address", "speaks"), SELECTED.values(), ids=SELECTED.keys())
def test_an_address_selects_packets(scene, address, speaks):
    wanted = int.from_bytes(bytes(map(int, address.split("."))), "little")
    records = think(scene, Hook.FROM_CONTAINER, udp(CLIENT, REMOTE), wanted=wanted)
    assert bool(records) == speaks


OPTIONS = {
    "its port": (40000, True),
    "another port": (40001, False),
    "what lies where ports are without options": (0x9A08, False),
}


@pytest.mark.parametrize(("port", "speaks"), OPTIONS.values(), ids=OPTIONS.keys())
def test_a_port_behind_options_selects_packets(scene, port, speaks):
    wanted = int.from_bytes(port.to_bytes(2, "big"), "little") << 48
    packet = tcp(CLIENT, REMOTE, options=bytes.fromhex("9a08c47901010101"))
    assert bool(think(scene, Hook.FROM_CONTAINER, packet, wanted=wanted)) == speaks


def test_a_service_and_its_backend_are_told(scene, words):
    scene.service(VIP, 80, [(REMOTE, 8080)], 7)
    records = think(scene, Hook.FROM_CONTAINER, tcp(CLIENT, VIP))
    by_kind = {words["mind_kind"][record.kind]: record for record in records}
    assert by_kind["SERVICE"].arg == 7
    assert by_kind["BACKEND"].arg == scene.backend_id(REMOTE, 8080)


ASKERS = {
    "by the pod": (Hook.FROM_CONTAINER, tcp(CLIENT, REMOTE, dport=81), REMOTE, {}),
    "on the uplink": (
        Hook.FROM_NETDEV,
        tcp(WORLD, NODE, dport=81),
        NODE,
        {"enable_nodeport": True},
    ),
}


@pytest.mark.parametrize(("hook", "packet", "asked", "config"), ASKERS.values(), ids=ASKERS.keys())
def test_that_no_service_was_found_is_told(scenes, words, hook, packet, asked, config):
    records = think(scenes(**config), hook, packet)
    [miss] = [r for r in records if words["mind_kind"][r.kind] == "SERVICE"]
    assert (miss.found, miss.arg) == (0, 0)
    assert bytes(miss.key[:6]) == bytes(map(int, asked.split("."))) + (81).to_bytes(2, "big")


def test_a_verdict_of_policy_and_the_drop_are_told(scenes, words):
    scene = scenes(enable_policy=True)
    records = think(scene, Hook.FROM_CONTAINER, tcp(CLIENT, REMOTE))
    by_kind = {words["mind_kind"][record.kind]: record for record in records}
    assert (by_kind["POLICY"].arg, by_kind["POLICY"].found) == (-133, 0)
    assert by_kind["VERDICT"].arg == -133


def test_a_translation_is_told(scenes, words):
    scene = scenes(enable_masquerade=True)
    records = think(scene, Hook.TO_NETDEV, tcp(CLIENT, WORLD))
    [nat] = [r for r in records if words["mind_kind"][r.kind] == "NAT"]
    assert bytes(nat.value[:4]) == bytes(map(int, NODE.split(".")))


def test_a_full_ring_is_counted(scene):
    config = scene.map("cilium_runtime_config")
    before = config.lookup(LOST).value
    config.update(ARM, Word(value=1))
    for port in range(1000):
        scene.run(Hook.FROM_CONTAINER, udp(CLIENT, REMOTE, 1000 + port))
    config.update(ARM, Word(value=0))
    assert config.lookup(LOST).value > before
    with closing(RingReader(scene._maps["cilium_mind"])) as reader:
        while reader.read():
            pass
