"""Probes of the user's own: their events in the packet's trace, their faults named, their end."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lab import Attach, Lab, Probe, codec
from lab.errors import (
    BuildError,
    InputError,
    KernelError,
    PrerequisiteError,
    UnsupportedError,
    VerifierError,
)
from lab.kernel import probe as abilities
from lab.kernel.headers import find_headers
from lab.observe.own import SERVICE, OwnProbe
from lab.report.ladder import ladder_text
from lab.runtime.messages import receive
from lab.trace import Evidence, Step, Trace
from lab.waiting import eventually
from topologies.two_nodes import topology

pytestmark = pytest.mark.live

FRAME, TUNNEL = 14 + 20 + 8 + 16, 50
"""Bytes of headers and cookie around a payload, and of the tunnel's around both."""
ROOT = Path(__file__).resolve().parents[2]
TEXT = """
struct event { u64 ns; u32 ifindex; u32 length; };
BPF_PERF_OUTPUT(seen);
int look(struct __sk_buff *ctx)
{
    struct event event = { .ns = bpf_ktime_get_ns(), .ifindex = ctx->ifindex, .length = ctx->len };
    seen.perf_submit(ctx, &event, sizeof(event));
    return -1;
}
int shot(struct __sk_buff *ctx) { return 2; }
int early(struct xdp_md *ctx)
{
    struct event event = { .ns = bpf_ktime_get_ns(), .length = ctx->data_end - ctx->data };
    seen.perf_submit(ctx, &event, sizeof(event));
    return XDP_PASS;
}
int raw(struct bpf_raw_tracepoint_args *ctx) { return 0; }
int wild(struct __sk_buff *ctx) { return *(int *)(long)ctx->data; }
"""


@pytest.fixture(scope="module")
def lab():
    try:
        find_headers()
    except PrerequisiteError as error:
        pytest.skip(f"{error.message}: {error.hint}")
    with Lab(topology) as lab:
        lab.follow("client", "server")
        yield lab


def own(kind, target, function, text=TEXT):
    return Probe(text, (Attach(kind, target, function),), name="own.py", first_line=10)


PLACES = {
    "tc ingress of a pod": (
        "tc-ingress", "server/eth0", "look", "server", Step.TC_INGRESS, Evidence.PROGRAM,
    ),
    "in front of the datapath on a pod's cable": (
        "tc-ingress", "alpha/lxcclient", "look", "alpha", Step.TC_INGRESS, Evidence.PROGRAM,
    ),
    "tc egress of a pod": ("tc-egress", "client/eth0", "look", "client", None, Evidence.PROGRAM),
    "XDP in a pod": ("xdp", "server/eth0", "early", "server", Step.XDP_DRIVER, Evidence.PROGRAM),
    "a port of the underlay's bridge": (
        "tc-ingress", "underlay/alpha", "look", "underlay", Step.TC_INGRESS, Evidence.PROGRAM,
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "target", "function", "namespace", "step", "evidence"),
    PLACES.values(),
    ids=PLACES.keys(),
)
def test_one_packet_is_seen_once_where_the_program_is(
    lab, kind, target, function, namespace, step, evidence
):
    with lab.probe(own(kind, target, function)):
        trace = lab.follow("client", "server", payload=b"x" * 100).packets[0]
        lab.pod("client").ping(lab.pod("server"))
    found = [hop for hop in trace.hops if hop.hook == "seen"]
    assert [(hop.namespace, hop.step, hop.evidence) for hop in found] == [
        (namespace, step, evidence)
    ]
    assert dict(found[0].values)["length"] == FRAME + 100 + TUNNEL * (namespace == "underlay")
    assert trace.delivered


def test_the_users_own_names_are_in_ladder_and_json(lab):
    with lab.probe(own("tc-ingress", "server/eth0", "look")):
        trace = lab.follow("client", "server").packets[0]
    assert f"length={FRAME + 5}" in ladder_text(trace)
    hops = json.loads(trace.to_json())["hops"]
    assert {"length": FRAME + 5} in [hop["values"] for hop in hops]
    assert Trace.from_json(trace.to_json()) == trace


def test_a_drop_of_the_users_own_program_is_a_drop_of_the_trace(lab):
    with lab.probe(own("tc-ingress", "server/eth0", "shot")):
        trace = lab.follow("client", "server").packets[0]
    assert [(hop.namespace, hop.step) for hop in trace.drops] == [("server", Step.TC_INGRESS)]
    assert lab.follow("client", "server").packets[0].delivered


BROKEN = "struct event { u64 ns; };\nBPF_PERF_OUTPUT(seen);\nint look(struct x *y) { return z; }\n"
FAULTS = {
    "C that does not compile": (
        ("tc-ingress", "server/eth0", "look", BROKEN), BuildError, r"own\.py:12:32: .*'z'",
    ),
    "a tracepoint with a slip": (
        ("tracepoint", "netif_recieve_skb", "raw"), InputError, "did you mean 'netif_receive_skb'",
    ),
    "a pod with a slip": (("xdp", "servre/eth0", "early"), InputError, "did you mean 'server'"),
    "a device with a slip": (("xdp", "server/et0", "early"), InputError, "did you mean 'eth0'"),
    "a function with a slip": (("xdp", "server/eth0", "erly"), InputError, "did you mean 'early'"),
    "no way out": (("xdp", "server/eth0", "f", "int f(void) { return 0; }"), InputError, "PERF"),
    "a program that the verifier refuses": (
        ("tc-ingress", "server/eth0", "wild"), VerifierError, "invalid access to packet",
    ),
    "a second XDP program": (("xdp", "beta/eth0", "early"), KernelError, "interface 2"),
}  # fmt: skip


@pytest.mark.parametrize(("what", "kind", "words"), FAULTS.values(), ids=FAULTS.keys())
def test_a_probe_that_cannot_run_says_why(lab, what, kind, words):
    beta = lab.node("beta")
    with lab.probe(own("xdp", "beta/eth0", "early")), pytest.raises(kind) as caught:  # noqa: SIM117
        with lab.probe(own(*what)):
            pass
    assert re.search(words, str(caught.value))
    assert "xdp" not in beta.run(["ip", "link", "show", "dev", "eth0"]).stdout


@pytest.mark.skipif(abilities.has("kprobe"), reason="this kernel has kprobes")
def test_without_kprobes_one_line_says_where_there_are_some():
    with Lab(topology) as lab, pytest.raises(UnsupportedError, match=r"no kprobes") as caught:
        with lab.probe(ROOT / "docs" / "socket_queue_probe.py"):
            pass
    assert "./lab.sh vm -- ./lab.sh trace" in caught.value.hint
    assert caught.value.exit_code == 3


HOLD = """
import sys
from lab import Lab
from tests.live.test_own_probe import own
lab = Lab.attach(sys.argv[1])
with lab.probe(own("tc-ingress", "server/eth0", "look")):
    print("armed", flush=True)
    sys.stdin.read()
"""


def programs(lab):
    text = lab.pod("server").run(["bpftool", "-j", "net", "show", "dev", "eth0"]).stdout
    return json.loads(text)[0]["tc"]


def children(process):
    return set(Path(f"/proc/{process}/task/{process}/children").read_text().split())


def test_a_probe_whose_process_is_killed_leaves_no_filter_where_there_are_no_links(lab):
    """Without tcx a filter is nobody's: a second process beside the probe's takes it away."""
    keeper = lab.keeper.record.pid
    before, others = programs(lab), children(keeper)
    probe = codec.encode(own("tc-ingress", "server/eth0", "look"))
    with lab.keeper.spawn(SERVICE, "", probe=probe, tcx=False) as connection:
        answer, _ = receive(connection)
        assert answer.get("ready"), answer
        assert len(programs(lab)) == len(before) + 1
        (owner,) = children(keeper) - others
        os.kill(int(owner), signal.SIGKILL)
        eventually(lambda: programs(lab) == before, within_s=10)
    eventually(lambda: children(keeper) <= others, within_s=10)


def test_a_killed_owner_takes_its_probe_along(lab):
    before = programs(lab)
    command = [sys.executable, "-c", HOLD, lab.name]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "armed\n"
        os.kill(owner.pid, signal.SIGKILL)
    eventually(lambda: programs(lab) == before, within_s=10)


def test_a_probe_whose_lab_is_gone_says_so_whichever_way_it_notices(lab):
    del lab  # the module's labs have the headers that this one needs
    with Lab(topology) as own:
        running = OwnProbe(own, Probe(TEXT, (Attach("tc-ingress", "server/eth0", "look"),)))
        own.stop()
        for _ in range(2):  # the connection breaks on reading first, then on writing
            with pytest.raises(KernelError, match="probe of lab .* is gone"):
                running.take()
        running.close()
