"""A lost connection request is repeated after one second."""

from lab import scenario
from lab.wire import Drop, Look, TwoHosts, is_timer, syn

hosts = TwoHosts(rules=(Drop(syn(1)),), delay_ms=20)


@scenario(hosts)
def lost_syn(lab):
    """The first SYN never arrives."""
    lab.connect()
    lab.wait_quiet()
    seen = lab.recording()
    flags = seen.flags()
    lab.effect("two SYNs, one SYN-ACK", flags == ("> SYN", "> SYN", "< SYN|ACK", "> ACK"))
    wait_ms = seen.at_ms(seen.flights[1].sent.time_ns)
    lab.effect(
        "the second SYN follows after 1 second",
        is_timer(wait_ms, 1000),
        detail=f"{wait_ms:.0f} ms",
    )
    lab.effect("the server has only seen the second", seen.flights[0].lost)
    lab.exactly("flags", flags)
    lab.picture(
        Look.SEQUENCE,
        "The first SYN is lost: once more after a second",
        seen,
        note="Nobody but the client knows of the first SYN, so only its timer can help.",
    )
