"""What tests about one packet's way have in common: places changed for a while, and its trace."""

from contextlib import ExitStack, contextmanager

from lab.observe.recording import Shot, follow


@contextmanager
def changed(*steps):
    """Run each place's first command now, and its second when the block is over."""
    with ExitStack() as stack:
        for place, do, undo in steps:
            place.run(do.split(), check=True)
            stack.callback(place.run, undo.split(), check=True)
        yield


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
