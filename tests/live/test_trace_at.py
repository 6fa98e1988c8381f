"""Beginning at a hook: it is the first to see the packet, whichever hook is asked for."""

import pytest

from lab.cli.root import run
from lab.errors import InputError
from lab.observe.at import entries, entry_at, follow_at
from lab.observe.recording import Shot
from tests.live.following import acquainted
from topologies.two_nodes import topology

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def lab():
    with acquainted(topology) as lab:
        yield lab


# --at -> protocol, where the packet is seen first, the first program or hook that judges it
BEGINNINGS = {
    "from-container": ("udp", ("alpha", "lxcclient"), "from-container"),
    "from-host": ("icmp", ("alpha", "cilium_host"), "from-host"),
    "to-netdev": ("udp", ("alpha", "eth0"), "to-netdev"),
    "from-netdev": ("tcp", ("beta", "eth0"), "from-netdev"),
    "from-overlay": ("udp", ("beta", "lo"), "from-overlay"),
    "to-host": ("udp", ("beta", "cilium_host"), "to-host"),
    "to-container": ("icmp", ("beta", "lxcserver"), ""),
    "beta/lxcserver": ("udp", ("beta", "lxcserver"), "from-container"),
    "server/eth0": ("udp", ("server", "eth0"), ""),
    "alpha/cilium_net": ("udp", ("alpha", "cilium_net"), "to-host"),
}


@pytest.mark.parametrize(("at", "expected"), BEGINNINGS.items(), ids=BEGINNINGS.keys())
def test_the_hook_asked_for_is_the_first_to_see_the_packet(lab, at, expected):
    protocol, place, program = expected
    sender, receiver = ("server", "client") if at == "beta/lxcserver" else ("client", "server")
    trace = follow_at(lab, sender, receiver, Shot(protocol=protocol), at).packets[0]
    first = trace.taken[0]
    assert (first.namespace, first.device) == place
    judged = [hop.hook for hop in trace.taken if hop.program.startswith("cil_")]
    assert judged[:1] == ([program] if program else [])
    assert not trace.drops


def test_a_packet_that_the_hook_refuses_is_dropped_there(lab):
    """A frame without a tunnel key cannot be sent on: the program says so, and it is seen."""
    trace = follow_at(lab, "client", "server", Shot(), "to-overlay").packets[0]
    assert (trace.drops[0].hook, trace.drops[0].drop_reason) == ("to-overlay", "NO_TUNNEL_KEY")


def test_between_nodes_the_packet_is_in_its_tunnel_with_its_identity(lab):
    trace = follow_at(lab, "client", "server", Shot(), "from-netdev").packets[0]
    assert trace.taken[0].identity == lab.pod("client").facts.identity
    assert (trace.packet.source, trace.delivered) == ("10.0.1.10", True)


@pytest.mark.parametrize("at", sorted(BEGINNINGS))
def test_a_hook_without_a_place_is_the_one_on_the_packets_way(lab, at):
    assert entry_at(lab, at, "client", "server") in entries(lab).values()


WRONG = {
    "no such hook": ("from-contaner", "did you mean 'from-container"),
    "no such place": ("from-netdev@gamma", "HOOK@PLACE"),
    "a hook of pods at a node": ("from-container@alpha", "devices"),
    "no such device": ("alpha/eth1", "did you mean 'alpha/eth0'"),
}


@pytest.mark.parametrize(("at", "hint"), WRONG.values(), ids=WRONG.keys())
def test_an_unknown_beginning_lists_those_there_are(lab, at, hint):
    with pytest.raises(InputError, match="no hook or device") as refused:
        entry_at(lab, at, "client", "server")
    assert hint in refused.value.hint
    assert "from-netdev" in refused.value.hint


def test_a_hook_of_pods_needs_a_pod(lab):
    with pytest.raises(InputError, match="'world' is no pod"):
        entry_at(lab, "from-container", "world", "server")


def test_sending_and_following_exclude_each_other(capsys):
    assert run(["trace", "a/b", "c", "--follow", "--at", "xdp"]) == 2
    assert "exclude" in capsys.readouterr().err
