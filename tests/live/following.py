"""What tests about one packet's way have in common: places changed for a while, and its trace."""

from contextlib import ExitStack, contextmanager

from lab import Lab
from lab.observe.recording import Shot, follow


@contextmanager
def acquainted(topology, **more):
    """Yield a lab whose client and server have met: no trace of theirs waits for ARP any more."""
    with Lab(topology, **more) as lab:
        lab.pod("client").ping(lab.pod("server"))
        yield lab


@contextmanager
def changed(*steps):
    """Run each place's first commands now (one, or a list), and its others after the block."""
    with ExitStack() as stack:
        for place, do, undo in steps:
            _run(place, do)
            stack.callback(_run, place, undo)
        yield


def _run(place, commands):
    for command in [commands] if isinstance(commands, str) else commands:
        place.run(command.split(), check=True)


def polled(lab, pod):
    """Let a pod's device have NAPI: veth polls where its peer does not send large packets whole."""
    live = lab.pod(pod)
    device = live.facts.lxc
    return changed(
        (live, "ethtool -K eth0 gro on", "ethtool -K eth0 gro off"),
        (live.node, f"ethtool -K {device} tso off", f"ethtool -K {device} tso on"),
    )


def facts(lab, pod):
    return next(facts for facts in lab.facts.pods if facts.name == pod)


def host_device(lab, pod):
    return facts(lab, pod).lxc


def one_packet(lab, *, to="server", **shot):
    """The trace of one followed datagram, after a look at whether anything was mixed up or lost."""
    recording = follow(lab, "client", to, Shot(**shot))
    assert recording.lost == 0
    return recording.packets[0]


def buffers(trace):
    return [hop.skb for hop in trace.taken if hop.skb]
