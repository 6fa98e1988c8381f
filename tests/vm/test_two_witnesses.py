"""On a kernel with fentry: do tracepoints and functions tell the same of a packet?"""

from collections.abc import Iterator

import pytest

from lab import Lab
from lab.trace import NO_EVIDENCE, Evidence, Step, Trace, Witness
from topologies.two_nodes import topology

CHAIN = "nft add chain ip t c { type filter hook prerouting priority 0 ; }"
DROP = ["nft add table ip t", CHAIN, "nft add rule ip t c udp dport 5000 drop"]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(topology) as lab:
        yield lab


def watched_by_both(lab: Lab, protocol: str) -> Trace:
    return lab.follow("client", "server", protocol=protocol, witness=Witness.BOTH).packets[0]


def test_both_witnesses_tell_the_same_and_leave_no_step_unexplained(lab: Lab) -> None:
    for protocol in ("udp", "tcp", "icmp"):
        trace = watched_by_both(lab, protocol)
        assert trace.witnesses, f"{protocol}: the functions saw nothing"
        assert trace.witnesses.agree, f"{protocol}: {trace.witnesses}"
        assert not trace.lost
        assert trace.delivered is (protocol != "icmp")  # the kernel answers an echo itself
        lines = [hop for hop in trace.at(namespace="server") if hop.step]
        assert {hop.step for hop in lines} == set(Step)
        assert not [hop for hop in lines if hop.reason.startswith(NO_EVIDENCE)]
        proven = {hop.step for hop in lines if hop.evidence is Evidence.PROBE}
        assert proven >= {
            Step.RECEIVE_SKB, Step.IP_RCV, Step.IP_RCV_FINISH, Step.IP_LOCAL_DELIVER,
            Step.L4_RECEIVE,
        }  # fmt: skip


def test_both_witnesses_name_the_chain_that_drops_a_packet(lab: Lab) -> None:
    for command in DROP:
        lab.pod("server").run(command.split(), check=True)
    trace = watched_by_both(lab, "udp")
    lab.pod("server").run(["nft", "delete", "table", "ip", "t"], check=True)
    assert trace.witnesses
    assert trace.witnesses.agree, str(trace.witnesses)
    (drop,) = trace.drops
    assert (drop.step, drop.drop_reason) == (Step.NETFILTER_PREROUTING, "NETFILTER_DROP")
    assert drop.evidence is Evidence.PROBE
