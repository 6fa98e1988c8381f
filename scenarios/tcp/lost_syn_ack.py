"""When the answer to a connection request is lost, the request itself is repeated."""

from lab import scenario
from lab.wire import Delay, Drop, Kind, Look, TwoHosts, Way, syn, syn_ack

# the first SYN is slow, so that the client's timer fires well before the server's
hosts = TwoHosts(rules=(Drop(syn_ack(1)), Delay(syn(1), 300)), delay_ms=20)


@scenario(hosts)
def lost_syn_ack(lab):
    """The first SYN-ACK never arrives."""
    lab.connect()
    lab.wait_quiet()
    seen = lab.recording()
    flags = seen.flags()
    lab.effect(
        "SYN, SYN-ACK, and the same again",
        flags == ("> SYN", "< SYN|ACK", "> SYN", "< SYN|ACK", "> ACK"),
    )
    answers = seen.of(Kind.SYN_ACK, Way.TO_CLIENT)
    lab.effect("the first answer is lost", [f.sent.host for f in seen.lost()] == ["server"])
    lab.check("both answers offer the same number", {answer.sent.seq for answer in answers} == {0})
    lab.exactly("flags", flags)
    lab.picture(
        Look.SEQUENCE,
        "The SYN-ACK is lost: the client asks again",
        seen,
        note="The first SYN is slow on purpose: so the client's timer fires before the server's.",
    )
