"""Two hosts on a wire: exact, the same from both back ends, honest, and gone afterwards."""

import asyncio
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from experiments import EXPERIMENTS, report_of

from lab.errors import CheckFailed, KernelError, UnsupportedError
from lab.kernel import probe
from lab.kernel.netns import NetworkNamespace
from lab.kernel.probe import Answer
from lab.scenarios.tally import Tally
from lab.scenarios.wire import WireStage
from lab.waiting import eventually
from lab.wire import (
    Bench,
    Drop,
    Duplicate,
    Fate,
    Medium,
    Rate,
    SocketOptions,
    TwoHosts,
    Way,
    ack,
    data,
    table,
)
from lab.wire.record import End
from lab.wire.sampler import Sampler

pytestmark = pytest.mark.live
ROOT = Path(__file__).resolve().parents[2]
IMPAIRED = [
    item
    for item in EXPERIMENTS.values()
    if "effect(" in Path(f"scenarios/tcp/{item.name}.py").read_text()
]


@pytest.mark.slow
@pytest.mark.parametrize("experiment", IMPAIRED, ids=lambda item: item.name)
def test_without_its_impairment_every_statement_about_it_fails(experiment, monkeypatch) -> None:
    impair = WireStage.impair
    monkeypatch.setattr(WireStage, "impair", lambda stage, *rules: impair(stage))
    perfect = replace(experiment, topology=replace(experiment.topology, rules=()))
    report = perfect.run()
    assert report.effects, "no statement was made about the impairment"
    surviving = [
        check.statement
        for check in report.checks
        if check.statement in report.effects and check.holds
    ]
    assert surviving == []


@pytest.mark.slow
@pytest.mark.parametrize("experiment", EXPERIMENTS.values(), ids=lambda item: item.name)
def test_repeated_runs_have_one_outcome(experiment) -> None:
    runs = int(os.environ.get("LAB_TCP_REPEAT", "3"))
    reports = [report_of(experiment.name), *(experiment.run() for _ in range(runs - 1))]
    tally = Tally(tuple(reports))
    assert tally.steady, (tally.broken(), tally.differences())


def test_a_rule_whose_packet_never_comes_is_reported() -> None:
    with WireStage(TwoHosts(rules=(Drop(data(50)),))) as lab:
        client, server = lab.connect()
        lab.deliver(client, server, 3000)
        lab.finish()
        (check,) = lab.checks
    assert not check.holds
    assert check.detail == "drop data #50 client→server: 3 such packets came"


def test_a_congestion_control_the_kernel_does_not_have_is_named() -> None:
    with Bench(TwoHosts()) as lab, pytest.raises(UnsupportedError, match="'warp'") as refusal:
        lab.connect(client=SocketOptions(congestion_control="warp"))
    assert refusal.value.exit_code == 3
    assert refusal.value.hint


@pytest.mark.parametrize(
    "hosts",
    [
        lambda: TwoHosts(medium=Medium.VETH, delay_ms=5),
        lambda: open_with(Rate(way=Way.TO_SERVER, rate_mbit=5)),
    ],
    ids=["a delay", "a rate"],
)
def test_what_a_veth_pair_cannot_do_is_refused(hosts) -> None:
    with pytest.raises(UnsupportedError, match=r"veth|ingress"):
        hosts()


def test_a_refused_script_leaves_the_one_in_force() -> None:
    first = Drop(data(1))
    with Bench(TwoHosts(medium=Medium.VETH, rules=(first,))) as lab:
        with pytest.raises(UnsupportedError, match="ingress"):
            lab.impair(Rate(way=Way.TO_SERVER, rate_mbit=5))
        assert lab.recording().script.rules == (first,)


def open_with(*rules, medium=Medium.VETH):
    with Bench(TwoHosts(medium=medium, rules=rules)):
        pass


def story(medium: Medium, *rules):
    """Return what happened to each data segment and what the receiver answered."""
    with Bench(TwoHosts(medium=medium, rules=rules, sysctls=(("ipv4.tcp_sack", "1"),))) as lab:
        client, server = lab.connect()
        lab.deliver(client, server, 9000)
        seen = lab.recording()
    return [
        (flight.sent.seq, flight.lost, len(flight.arrived_ns)) for flight in seen.data()
    ], seen.client["TCPFastRetrans"]


@pytest.mark.parametrize(
    "rule", [Drop(data(2)), Drop(data(1, first_byte=2001)), Drop(ack(1, 2))], ids=str
)
def test_both_back_ends_tell_the_same_story(rule) -> None:
    assert story(Medium.WIRE, rule) == story(Medium.VETH, rule)


def test_the_program_delivers_a_duplicate() -> None:
    with Bench(TwoHosts(medium=Medium.VETH, rules=(Duplicate(data(2)),))) as lab:
        client, server = lab.connect()
        lab.deliver(client, server, 3000)
        flights = lab.recording().data()
    assert [flight.fate for flight in flights] == [
        Fate.DELIVERED,
        Fate.DUPLICATED,
        Fate.DELIVERED,
    ]
    assert server.intact


def test_the_kernels_log_and_the_wires_journal_agree() -> None:
    with Bench(TwoHosts(rules=(Drop(data(2)),), delay_ms=2)) as lab:
        client, server = lab.connect()
        lab.deliver(client, server, 9000)
        seen = lab.recording()
    sent = [row for row in seen.segments if row.end is End.SENT]
    received = [row for row in seen.segments if row.end is End.RECEIVED]
    assert len(sent) == len(seen.passages)
    assert len(received) == sum(len(passage.written) for passage in seen.passages)
    assert {row.cookie for row in sent if row.length} == {sent[-2].cookie or sent[-1].cookie} - {0}


KILLED = """
import sys
from lab.wire import Bench, Drop, TwoHosts, data
with Bench(TwoHosts(delay_ms=5, rules=(Drop(data(1)),))) as lab:
    client, server = lab.connect()
    client.send(1000)
    print(lab._line.pid, lab._programs.received.info().id, flush=True)
    sys.stdin.read()
"""


def loaded(program: int) -> bool:
    """Whether the kernel still has the program of that number."""
    command = ["bpftool", "prog", "show", "id", str(program)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def program_of(lab: Bench) -> int:
    return lab._programs.received.info().id


def test_a_killed_owner_leaves_nothing() -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", KILLED], cwd=ROOT, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    wire, program = map(int, owner.stdout.readline().split())
    assert loaded(program)
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    eventually(lambda: not Path(f"/proc/{wire}").exists(), what="the end of the wire's process")
    # programs go with the devices they are attached to, and these with their namespace
    eventually(lambda: not loaded(program), within_s=20, what="the end of the programs")


def test_netlink_from_another_thread_stays_in_its_namespace() -> None:
    # pyroute2 opens a socket per thread: without care it would belong to the machine's namespace
    space = NetworkNamespace.create("alone")
    try:
        with ThreadPoolExecutor(max_workers=1) as pool:
            links = pool.submit(space.request, "link", "dump").result()
        assert [item.get_attr("IFLA_IFNAME") for item in links] == ["lo"]
    finally:
        space.close()


def test_two_hosts_come_up_and_go_inside_a_running_event_loop() -> None:
    async def experiment() -> tuple[bool, int]:
        with Bench(TwoHosts(delay_ms=1)) as lab:
            client, server = lab.connect()
            lab.deliver(client, server, 2000)
            lab.open_tun().close()
            return server.intact, program_of(lab)

    intact, program = asyncio.run(experiment())
    assert intact
    eventually(lambda: not loaded(program), within_s=10, what="the end of the programs")


def test_the_sampler_reads_tcp_info_until_its_block_ends() -> None:
    with Bench(TwoHosts(delay_ms=5)) as lab:
        client, server = lab.connect()
        with Sampler(client, every_ms=5) as sampler:
            lab.transfer(client, server, 600_000)
        taken = sampler.samples
        seen = lab.recording()
    assert len(taken) > 3
    assert taken[0].cwnd < taken[-1].cwnd
    sampled = [row for row in table.rows(seen, [("client", one) for one in taken]) if row.time_ms]
    times = [float(row.time_ms) for row in sampled]
    assert times == sorted(times)
    assert {"tcp_info", "sent", "received", "probe"} <= {row.observer for row in sampled}
    assert [item.time_ns for item in taken] == sorted(item.time_ns for item in taken)


def test_a_kernel_without_netem_says_so_and_where_there_is_one() -> None:
    # what netem does is tested on the second kernel (tests/vm)
    if probe.ability("netem").answer is Answer.YES:
        pytest.skip("this kernel has netem")
    with pytest.raises(UnsupportedError, match="no netem") as refusal:
        open_with(medium=Medium.NETEM)
    assert "lab vm" in refusal.value.hint
    assert refusal.value.exit_code == 3


def test_a_peer_that_resets_is_told_as_such() -> None:
    with Bench(TwoHosts()) as lab:
        client, server = lab.connect()
        server.reset()
        lab.wait_quiet()
        with pytest.raises(CheckFailed, match="ECONNRESET"):
            client.receive(1)


def test_a_killed_wire_is_reported_and_everything_still_goes() -> None:
    with Bench(TwoHosts()) as lab:
        lab.connect()
        program = program_of(lab)
        os.kill(lab._line.pid, signal.SIGKILL)
        with pytest.raises(KernelError, match="does not answer"):
            lab.recording()
    eventually(lambda: not loaded(program), within_s=10, what="the end of the programs")
