"""What the control plane does under load costs no connection: not one packet sent again."""

import contextlib
import re
import threading

import pytest

from lab import Lab, Service, ServicePort
from lab.errors import LabError
from lab.policy.objects import NetworkPolicy, NetworkRule, Peer, Port, Selector
from lab.waiting import eventually
from topologies.two_nodes import topology

pytestmark = pytest.mark.live

ENDS = ("client", "server")
MEGABYTE = 1 << 20


def allow(port):
    """Let only the client in, on the echo port and one that changes."""
    ports = (Port("TCP", 8080), Port("TCP", port))
    rule = NetworkRule((Peer(Selector.of(app="client")),), ports)
    return NetworkPolicy(name="guard", pod_selector=Selector.of(app="server"), ingress=(rule,))


def counters(lab, pod):
    """Every counter of /proc/net/snmp and netstat, by name."""
    text = lab.pod(pod).run(["cat", "/proc/net/netstat", "/proc/net/snmp"], check=True).stdout
    found = {}
    for names, values in zip(text.splitlines()[::2], text.splitlines()[1::2], strict=True):
        kind = names.split(":")[0]
        pairs = zip(names.split()[1:], values.split()[1:], strict=True)
        found |= {kind + name: int(value) for name, value in pairs}
    return found


def resent(lab):
    """TcpRetransSegs of both ends, without those whose first copy had arrived (DSACK).

    A sender that the scheduler moves to another CPU overtakes itself, with nothing disturbing it
    too: what it then sends again is taken back by a DSACK, but a moment later. A loss is not.
    """
    ends = [counters(lab, pod) for pod in ENDS]
    return sum(end["TcpRetransSegs"] - end["TcpExtTCPDSACKRecvSegs"] for end in ends)


def losses(lab):
    """Segments lost and packets dropped so far, as two readings in a row agree on."""
    seen = []

    def settled():
        seen.append((resent(lab), dropped(lab)))
        return len(seen) > 1 and seen[-1] == seen[-2]

    eventually(settled, what="two equal readings of the counters")
    return seen[-1]


def check_no_loss_since(lab, before):
    first = resent(lab), dropped(lab)
    eventually(
        lambda: (resent(lab), dropped(lab)) == before,
        what=f"taking back what was sent again since {before}, at first {first},",
    )


def dropped(lab):
    """Packets with a drop reason (130 and above) in both nodes' metrics."""
    total = 0
    pin = "/sys/fs/bpf/tc/globals/cilium_metrics"
    for node in ("alpha", "beta"):
        text = lab.node(node).run(["bpftool", "map", "dump", "pinned", pin], check=True).stdout
        for entry in text.split('"key"')[1:]:
            if int(re.search(r'"reason": (\d+)', entry)[1]) >= 130:
                total += sum(map(int, re.findall(r'"count": (\d+)', entry)))
    return total


def kill_agent(lab, turn):
    lab.agent.restart()
    assert lab.agent.status().endpoints == 6


def end_agent(lab, turn):
    """What a defect of the agent does: it is gone, and the keeper starts another one."""
    before = lab.agent.life().restarts
    lab.node("alpha").run(["kill", "-SEGV", str(lab.agent.status().pid)], check=True)
    lab.agent.close()
    eventually(lambda: lab.agent.life().restarts > before, within_s=30, what="the next agent")
    assert lab.agent.status().endpoints == 6


def regenerate(lab, turn):
    node, endpoint = (("alpha", "client"), ("beta", "server"))[turn % 2]
    lab.node(node).agent.regenerate(endpoint, "under load")


def regenerate_node(lab, turn):
    node = ("alpha", "beta")[turn % 2]
    lab.node(node).agent.regenerate(node, "under load")


def change_policy(lab, turn):
    lab.apply(allow(9000 + turn))


def change_service(lab, turn):
    backends = (("server", "other"), ("server",), ("web", "server", "other"))[turn % 3]
    lab.apply(Service(name="echo", ports=(ServicePort(80, 8080),), backends=backends))


DISTURBANCES = {
    "nothing, for control": (lambda lab, turn: None, 10),
    "agent killed and started": (kill_agent, 3),
    "agent ended by a defect of its own": (end_agent, 2),
    "endpoints regenerated ten times": (regenerate, 10),
    "the nodes' own programs regenerated": (regenerate_node, 4),
    "policy changed ten times": (change_policy, 10),
    "backends of the service changed": (change_service, 9),
}


@pytest.fixture(scope="module")
def lab():
    with Lab(topology) as lab:
        for name in ENDS:
            # A loss probe is sent when an answer is late, be it for want of a CPU.
            lab.pod(name).run(["sysctl", "-qw", "net.ipv4.tcp_early_retrans=0"], check=True)
        lab.apply(allow(9000))
        lab.apply(Service(name="echo", ports=(ServicePort(80, 8080),), backends=("server",)))
        with lab.pod("server").serve_tcp(8080):
            yield lab


@pytest.fixture(scope="module")
def stream(lab):
    with lab.pod("client").stream(lab.service("echo").address, 80) as stream:
        yield stream


@pytest.mark.parametrize(("disturb", "times"), DISTURBANCES.values(), ids=DISTURBANCES.keys())
def test_a_long_transfer_does_not_notice(lab, stream, disturb, times):
    before = losses(lab)
    for turn in range(times):
        moved = stream.report().received
        disturb(lab, turn)
        eventually(lambda m=moved: stream.report().received > m + MEGABYTE, what="progress")
    assert stream.report().error == ""
    check_no_loss_since(lab, before)


def test_killed_in_the_middle_of_an_exchange(lab, stream):
    """Whenever the agent dies, no packet is lost, and the next one finishes the work."""
    node = lab.node("alpha").agent
    before = losses(lab)
    for turn in range(12):
        asked = threading.Thread(target=give_up_quietly, args=(node.regenerate, "client"))
        asked.start()
        # somewhere between the first load and the last pin, which takes some 30 ms
        threading.Event().wait(0.004 * turn)
        lab.agent.restart()
        asked.join()
        moved = stream.report().received
        eventually(lambda m=moved: stream.report().received > m + MEGABYTE, what="progress")
        assert lab.agent.status().endpoints == 6
        names = lab.node("alpha").run(["ls", "/sys/fs/bpf/tc/globals"], check=True).stdout
        assert "_next" not in names
    check_no_loss_since(lab, before)


def give_up_quietly(call, *arguments):
    with contextlib.suppress(LabError):
        call(*arguments)


def test_the_measure_can_fail(lab):
    """A drop on purpose moves both counters: the test above would see one."""
    before = losses(lab)
    closed = lab.pod("other").connect(lab.pod("server"), 8080, timeout_s=0.5)
    assert not closed.ok
    assert dropped(lab) > before[1]
    with lab.pod("client").session(lab.pod("server"), 8080) as session:
        lab.apply(NetworkPolicy(name="guard", pod_selector=Selector.of(app="server")))
        with pytest.raises(Exception, match="timed out"):
            session.echo(b"lost")
    assert losses(lab)[0] > before[0]
