"""Programs are exchanged ten times under a running transfer, and not one packet is lost."""

from lab import Lab, scenario
from lab.waiting import eventually
from topologies.two_nodes import topology

NETSTAT = ["cat", "/proc/net/netstat"]


def timeouts(lab: Lab) -> int:
    """Retransmission timeouts of both ends: only a lost packet causes one."""
    total = 0
    for pod in ("client", "server"):
        names, values, *_ = lab.pod(pod).run(NETSTAT).stdout.splitlines()
        total += int(values.split()[names.split().index("TCPTimeouts")])
    return total


@scenario(topology)
def regeneration_under_load(lab: Lab) -> None:
    """Both ends' programs, in turns."""
    before = timeouts(lab)
    with (
        lab.pod("server").serve_tcp(8080),
        lab.pod("client").stream(lab.pod("server"), 8080) as stream,
    ):
        for turn in range(10):
            node, pod = (("alpha", "client"), ("beta", "server"))[turn % 2]
            revision = lab.node(node).agent.regenerate(pod, "a scenario asks")
            moved = stream.report().received
            eventually(lambda m=moved: stream.report().received > m, what="progress")
        report = stream.report()
    lab.check("each endpoint has new programs five times over", revision == 5)
    lab.check("the transfer went on", report.error == "" and report.received > 0)
    lab.check("no retransmission timer has run out", timeouts(lab) == before)
