"""Which entry of the policy map answers, and that no packet is misjudged while it is changed."""

import random
import threading
from itertools import product

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lab.agent.policies import begin, finish
from lab.kernel.bpf import wait_for_readers
from lab.kernel.bpfmap import BpfMap
from lab.layouts.attach import Hook
from lab.layouts.core import PolicyAbsent
from lab.policy.entries import EntryKey, unpack_value
from lab.policy.objects import Direction
from lab.policy.oracle import Packet
from tests.bpffs import detached_bpffs
from tests.policy_program import NUMBER, NUMBERS, PolicyProgram, frame

PEER, OTHER, PEER_ADDRESS = 300, 301, "10.0.1.11"
ALLOWED, MISSED, DENIED = 0, 133, 181
IN, OUT = Direction.INGRESS, Direction.EGRESS


def spans(key):
    """What an entry stands for: protocols and ports as numbers, and how many of them."""
    if not key.protocol:
        return range(256), range(65536)
    return range(key.protocol, key.protocol + 1), range(
        key.port, key.port + (1 << 16 - key.port_bits)
    )


def judged(entries, identity, direction, packet):
    """Reason and deciding entry, by the rules as they are told; every entry is looked at."""
    answers = []
    for owner in (identity, 0):
        fitting = []
        for key in entries:
            protocols, ports = spans(key)
            if (
                (key.identity, key.egress) == (owner, direction is OUT)
                and NUMBERS[packet.protocol] in protocols
                and packet.port in ports
            ):
                fitting.append((len(protocols) * len(ports), key))
        if fitting:
            answers.append(min(fitting, key=lambda item: item[0]))
    denying = [answer for answer in answers if entries[answer[1]]]
    if denying:
        return DENIED, denying[0][1]
    if answers:
        return ALLOWED, min(answers, key=lambda item: item[0])[1]
    return MISSED, None


@pytest.fixture(scope="module")
def program():
    made = PolicyProgram()
    made.know({f"{PEER_ADDRESS}/32": PEER})
    yield made
    made.close()


def asked(program, direction, packet, identity=PEER):
    """Reason of one packet, and the entry that counted it."""
    before = counted(program)
    reason = program.send(direction, PEER_ADDRESS, identity, packet)
    [entry] = [key for key, number in counted(program).items() if number != before[key]] or [None]
    return reason, entry


def counted(program):
    return {EntryKey.unpack(key): unpack_value(value)[1] for key, value in program.policy.items()}


def block(identity, first, size, deny=False, protocol=6):
    """An entry for ``size`` ports from ``first`` on that come in."""
    return {EntryKey(identity, False, protocol, first, 17 - size.bit_length()): deny}


def protocol(identity, number=6, deny=False):
    return {EntryKey(identity, False, number): deny}


def everything(identity, deny=False):
    return {EntryKey(identity, False): deny}


TCP = [Packet("TCP", port) for port in (0, 1, 79, 80, 81, 95, 96, 127, 128, 32767, 32768, 65535)]
UDP = [Packet("UDP", 80)]
TABLE = {
    "one port": block(PEER, 80, 1),
    "blocks of every size around one port": {
        key: value for power in range(16) for key, value in block(PEER, 0, 1 << power).items()
    },
    "the upper half of all ports": block(PEER, 32768, 32768),
    "port 0 is one port": block(PEER, 0, 1),
    "all ports of a protocol": protocol(PEER),
    "everything": everything(0),
    "port 0 beside all ports of its protocol": block(PEER, 0, 1) | protocol(PEER, deny=True),
    "a denied port inside allowed blocks": (
        block(PEER, 80, 1, deny=True) | block(PEER, 80, 16) | block(PEER, 64, 64)
    ),
    "a denied block inside an allowed protocol": block(PEER, 80, 16, deny=True) | protocol(PEER),
    "a denied block inside everything": block(PEER, 64, 64, deny=True) | everything(PEER),
    "two widths, the one of the peer, the other of anybody": block(PEER, 80, 16) | block(0, 64, 64),
    "anybody's block is smaller": block(PEER, 64, 64) | block(0, 80, 16),
    "anybody's wide deny beats the peer's port": block(PEER, 80, 1) | everything(0, deny=True),
    "the peer's wide deny beats anybody's port": everything(PEER, deny=True) | block(0, 80, 1),
    "equal blocks: the peer's answers": block(PEER, 80, 16) | block(0, 80, 16),
    "another peer's entries": block(OTHER, 80, 16, deny=True) | everything(OTHER),
    "another protocol's block of the same ports": block(PEER, 80, 16, protocol=17),
    "what is sent is not what is received": {EntryKey(PEER, True): False, EntryKey(0, True): True},
    "widths on both sides of one that is not there": block(PEER, 80, 2) | block(PEER, 0, 1024),
}


@pytest.mark.parametrize("knowing", [True, False], ids=["told what is absent", "told nothing"])
@pytest.mark.parametrize("entries", TABLE.values(), ids=TABLE.keys())
def test_the_most_specific_entry_answers(program, entries, knowing):
    program.play(entries)
    if not knowing:
        program.tell_absent(PolicyAbsent())
    for packet in TCP + UDP:
        expected = judged(entries, PEER, IN, packet)
        assert asked(program, IN, packet) == expected, packet


keys = st.builds(
    lambda identity, egress, number, port, bits: EntryKey(
        identity, egress, number, port & 0xFFFF << 16 - bits if number else 0, number and bits
    ),
    st.sampled_from((0, PEER, OTHER)),
    st.booleans(),
    st.sampled_from((0, 1, 6, 17)),
    st.sampled_from((0, 8, 53, 80, 95, 96, 1024, 65535)),
    st.integers(0, 16),
)
packets = st.one_of(
    st.builds(Packet, st.sampled_from(("TCP", "UDP")), st.sampled_from((0, 53, 81, 95, 1500))),
    st.builds(Packet, st.just("ICMP"), st.sampled_from((8, 13))),
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    entries=st.dictionaries(keys, st.booleans(), max_size=12),
    asks=st.lists(st.tuples(st.sampled_from(Direction), packets), min_size=6, max_size=6),
)
def test_any_entries_answer_as_a_search_through_all_of_them(program, entries, asks):
    program.play(entries)
    for direction, packet in asks:
        assert asked(program, direction, packet) == judged(entries, PEER, direction, packet)


# -- while it changes ------------------------------------------------------------------------------

CHANGES = {
    "a block comes": (block(PEER, 80, 1), block(PEER, 80, 1) | block(PEER, 64, 64)),
    "a block goes": (block(PEER, 80, 1) | block(PEER, 64, 64), block(PEER, 80, 1)),
    "a port in place of a block": (block(PEER, 80, 16), block(PEER, 80, 1)),
    "a block in place of a port": (block(PEER, 80, 1), block(PEER, 80, 16)),
    "everything in place of a block": (block(PEER, 80, 16), everything(PEER)),
    "a block in place of everything": (everything(0), block(PEER, 80, 16)),
    "a deny comes with what is allowed around it": (
        {},
        block(PEER, 64, 64) | block(PEER, 80, 1, deny=True),
    ),
    "a deny goes with what was allowed around it": (
        block(PEER, 64, 64) | block(PEER, 80, 1, deny=True),
        {},
    ),
    "denied, then only not allowed": (everything(0) | block(0, 80, 16, deny=True), {}),
    "a denied block, then a denied port": (
        protocol(PEER) | block(PEER, 80, 16, deny=True),
        protocol(PEER) | block(PEER, 80, 1, deny=True),
    ),
    "a deny of the peer's, then one of anybody's": (
        everything(PEER, deny=True) | block(0, 80, 1),
        everything(0, deny=True) | block(PEER, 80, 1),
    ),
    "a denied block goes, its surroundings are exchanged for others": (
        block(PEER, 64, 64) | block(PEER, 80, 16, deny=True),
        block(PEER, 1024, 64),
    ),
    "the same entry allows, then denies": (protocol(0), protocol(0, deny=True)),
}


def without_hidden_denies(entries):
    """What a compiler may write: no allow inside a deny of the same identity."""
    denied = {key for key, deny in entries.items() if deny}
    return {
        key: deny
        for key, deny in entries.items()
        if deny or not any(parent in denied for parent in key.parents())
    }


def at_random():
    draw = random.Random(20)

    def entries():
        found = {}
        for _ in range(draw.randrange(7)):
            size = draw.choice((0, 1, 2, 16, 64, 1 << 16))
            who, deny = draw.choice((0, PEER)), draw.random() < 0.3
            found |= block(who, 80 // size * size, size, deny) if size else everything(who, deny)
        return without_hidden_denies(found)

    return {f"entries drawn at random, {number}": (entries(), entries()) for number in range(25)}


@pytest.fixture
def pins(program):
    """Pins of the policy map and of what is absent."""
    with detached_bpffs() as folder:
        program.policy.pin(folder / "policy")
        program.absent.pin(folder / "absent")
        yield folder / "policy", folder / "absent"


@pytest.fixture
def after_each_write(program, monkeypatch):
    """Call a function after every single change of the two maps."""
    watched, calls = {program.policy.id, program.absent.id}, []
    update, delete = BpfMap.update, BpfMap.delete

    def seen(action):
        def step(self, *words, **options):
            result = action(self, *words, **options)
            if self.id in watched:
                for call in calls:
                    call()
            return result

        return step

    def one_by_one(self, items):
        for key, value in items:
            self.update(key, value)

    monkeypatch.setattr(BpfMap, "update", seen(update))
    monkeypatch.setattr(BpfMap, "delete", seen(delete))
    monkeypatch.setattr(BpfMap, "update_many", one_by_one)
    return calls.append


@pytest.mark.parametrize(
    ("old", "new"), (CHANGES | at_random()).values(), ids=(CHANGES | at_random()).keys()
)
def test_what_old_and_new_agree_on_holds_at_every_step(program, pins, after_each_write, old, new):
    program.play(old)
    agreed = {}
    for packet in TCP + UDP:
        verdicts = {judged(entries, PEER, IN, packet)[0] == ALLOWED for entries in (old, new)}
        if len(verdicts) == 1:
            agreed[packet] = verdicts.pop()
    steps = []

    def check():
        for packet, allowed in agreed.items():
            reason = program.send(IN, PEER_ADDRESS, PEER, packet)
            assert (reason == ALLOWED) == allowed, (len(steps), packet)
        steps.append(counted(program))

    after_each_write(check)
    begin(*pins, NUMBER, new)
    finish(*pins, NUMBER, new)
    assert {key for key in counted(program)} == set(new)
    assert old == new or steps
    for packet in TCP + UDP:
        assert program.send(IN, PEER_ADDRESS, PEER, packet) == judged(new, PEER, IN, packet)[0]


OUTWARD = [
    {EntryKey(PEER, True, 6, 80, 16): False},
    {EntryKey(PEER, True, 6, 64, 10): False},
    {EntryKey(0, True, 6, 80, 12): False, EntryKey(PEER, True, 6, 256, 8): True},
    {EntryKey(0, True): False, EntryKey(PEER, True, 6, 443, 16): True},
]


def drops(program):
    counters = program.datapath.map("cilium_metrics").items()
    return sum(value.count for key, value in counters if key.reason in (MISSED, DENIED))


@pytest.mark.parametrize("allowed", [True, False], ids=["allowed before and after", "forbidden"])
def test_running_traffic_is_judged_right_while_classes_come_and_go(program, pins, allowed):
    program.play(OUTWARD[0])
    port, over, runs = 80 if allowed else 443, threading.Event(), []

    def traffic(source_port):
        sender = program.datapath.program(Hook.FROM_CONTAINER)
        data = frame("10.0.9.9", PEER_ADDRESS, "TCP", port, source_port)
        while not over.is_set():
            sender.test_run(data, repeat=200)
            runs.append(200)

    threads = [threading.Thread(target=traffic, args=(40000 + n,)) for n in range(2)]
    before = drops(program)
    for thread in threads:
        thread.start()
    try:
        for _, entries in product(range(10), [*OUTWARD[1:], OUTWARD[0]]):
            begin(*pins, NUMBER, entries)
            wait_for_readers()
            finish(*pins, NUMBER, entries)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert sum(runs) > 10_000
    assert drops(program) - before == (0 if allowed else sum(runs))
