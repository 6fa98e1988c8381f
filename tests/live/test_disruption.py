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


ECHO = (Port("TCP", 8080), Port("TCP", 8000, 8100), Port("TCP"))
"""Ways to allow the echo port: by itself, in blocks of several sizes, with all others."""


def allow(port, echo=ECHO[0]):
    """Let only the client in, on the echo port and one that changes."""
    ports = (echo, Port("TCP", port))
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


def segments(lab):
    """Of each end: segments sent again, taken back by a DSACK, and DSACKs of the other end."""
    ends = [counters(lab, pod) for pod in ENDS]
    sent_again = [end["TcpRetransSegs"] for end in ends]
    taken_back = [end["TcpExtTCPDSACKRecvSegs"] for end in ends]
    had_it = [end["TcpExtTCPDSACKOldSent"] + end["TcpExtTCPDSACKOfoSent"] for end in ends]
    return tuple(zip(sent_again, taken_back, reversed(had_it), strict=True))


def resent(before, after):
    """Segments sent again because they were lost: TcpRetransSegs without needless copies.

    Two CPUs carry a flow here, the sender's and that of the answers, and a busy one falls behind:
    segments overtake each other with nothing disturbing them too. What is then sent again the
    receiver has, and says so; its word may come too late to be believed (PAWS), so both ends count.
    """
    lost = 0
    for first, now in zip(before, after, strict=True):
        sent_again, taken_back, had_it = (n - m for n, m in zip(now, first, strict=True))
        lost += sent_again - max(taken_back, had_it)
    return lost


def dropped(lab):
    """Packets with a drop reason (130 and above) in both nodes' metrics."""
    total = 0
    pin = "/sys/fs/bpf/tc/globals/cilium_metrics"
    for node in ("alpha", "beta"):
        text = lab.node(node).run(["bpftool", "map", "dump", "pinned", pin], check=True).stdout
        for entry in text.split('"key"')[1:]:
            if int(re.match(r": (\d+)", entry)[1]) >> 2 >= 130:
                total += sum(map(int, re.findall(r'"count": (\d+)', entry)))
    return total


def reading(lab):
    """Segments and drops so far, as two readings in a row agree on: a DSACK comes later."""
    seen = []

    def settled():
        seen.append((segments(lab), dropped(lab)))
        return len(seen) > 1 and seen[-1] == seen[-2]

    eventually(settled, what="two equal readings of the counters")
    return seen[-1]


def losses(lab, before):
    """Segments lost and packets dropped since a reading."""
    after = reading(lab)
    return resent(before[0], after[0]), after[1] - before[1]


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
    lab.apply(allow(9000 + turn, ECHO[turn % 3]))


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
    before = reading(lab)
    for turn in range(times):
        moved = stream.report().received
        disturb(lab, turn)
        eventually(lambda m=moved: stream.report().received > m + MEGABYTE, what="progress")
    assert stream.report().error == ""
    assert losses(lab, before) == (0, 0)


def test_killed_in_the_middle_of_an_exchange(lab, stream):
    """Whenever the agent dies, no packet is lost, and the next one finishes the work."""
    node = lab.node("alpha").agent
    before = reading(lab)
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
    assert losses(lab, before) == (0, 0)


def give_up_quietly(call, *arguments):
    with contextlib.suppress(LabError):
        call(*arguments)


def test_the_measure_can_fail(lab):
    """A drop on purpose moves both counters: the test above would see one."""
    before = reading(lab)
    closed = lab.pod("other").connect(lab.pod("server"), 8080, timeout_s=0.5)
    assert not closed.ok
    assert losses(lab, before)[1] > 0
    with lab.pod("client").session(lab.pod("server"), 8080) as session:
        lab.apply(NetworkPolicy(name="guard", pod_selector=Selector.of(app="server")))
        with pytest.raises(Exception, match="timed out"):
            session.echo(b"lost")
    assert losses(lab, before)[0] > 0
