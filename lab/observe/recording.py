"""Recording what happens in a lab: everything inside a block, or one packet sent on purpose."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address
from typing import TYPE_CHECKING

from lab.errors import CheckFailed, InputError
from lab.observe.causes import ERRNO
from lab.observe.flood import with_arriving_copy
from lab.observe.tracer import Flow, Tracer
from lab.observe.witness import BothTracers, open_tracer
from lab.packets import new_cookie
from lab.trace import Hop, Trace, Witness

if TYPE_CHECKING:
    from lab.runtime.live import Lab, Place

# within the kernel's own default range for clients: 32768 to 60999
_FIRST_PORT, _PORTS = 32768, 28000
PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17}


class Recording:
    """What a tracer saw; complete once the block that made it has ended.

    Attributes:
        packets: one trace per packet, in order of first sight.
        error: what the sender's system call said of a packet sent on purpose: an errno's name,
            ``timeout``, or empty if the answer came.
        destination: address that packet was sent to, empty if none was sent on purpose.
    """

    def __init__(self) -> None:
        self.packets: tuple[Trace, ...] = ()
        self.error = ""
        self.destination = ""

    @property
    def drops(self) -> tuple[Hop, ...]:
        """Every hop at which some packet was dropped."""
        return tuple(hop for trace in self.packets for hop in trace.drops)

    @property
    def lost(self) -> int:
        """Events that the kernel could not hand over."""
        # each trace carries the count of the whole recording
        return max((trace.lost for trace in self.packets), default=0)

    @property
    def walk(self) -> tuple[str, ...]:
        """``PLACE HOOK`` of every datapath program that was run, in order of kernel time."""
        hops = [hop for trace in self.packets for hop in trace.taken if hop.program]
        ordered = sorted(hops, key=lambda hop: hop.ns)
        return tuple(f"{hop.namespace} {_spoken(hop)}" for hop in ordered)

    def of(
        self,
        protocol: str | None = None,
        *,
        sender: str | None = None,
        receiver: str | None = None,
        port: int | None = None,
        cookie: int | None = None,
    ) -> Trace:
        """Return the first packet that matches; None matches everything.

        Args:
            protocol: ``udp``, ``tcp``, ``icmp`` or ``arp``.
            sender: pod or node it comes from.
            receiver: pod or node it goes to.
            port: destination port.
            cookie: of its payload.

        Raises:
            CheckFailed: no packet matches; the message lists those there are.
        """
        for trace in self.packets:
            packet = trace.packet
            if (
                protocol in (None, packet.protocol)
                and sender in (None, packet.sender)
                and receiver in (None, packet.receiver)
                and port in (None, packet.destination_port)
                and (cookie is None or packet.cookie == f"{cookie:016x}")
            ):
                return trace
        seen = "; ".join(str(trace.packet) for trace in self.packets[:5]) or "none at all"
        raise CheckFailed(
            f"no such packet was seen; there were: {seen}",
            hint="send it inside the block, or look for less",
        )


@contextmanager
def record(lab: Lab, *, flow: Flow | None = None, stacks: bool = True) -> Iterator[Recording]:
    """Record every packet in the lab, or those of one flow, while the block runs.

    Args:
        lab: must be up.
        flow: only these packets.
        stacks: take call stacks.

    Raises:
        UnsupportedError: the kernel has no BTF.
    """
    recording = Recording()
    with Tracer(lab, stacks=stacks) as tracer:
        if flow is None:
            tracer.everything()
        else:
            tracer.only_flow(flow)
        try:
            yield recording
        finally:
            recording.packets = tracer.traces()


def _spoken(hop: Hop) -> str:
    """The datapath's name of the hook: a witness that saw only the program run knows that."""
    if hop.hook.startswith("tc_") and hop.program.startswith("cil_"):
        return hop.program.removeprefix("cil_").replace("_", "-")
    return hop.hook


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """One packet to send on purpose and to follow.

    Attributes:
        protocol: ``udp``, ``tcp`` or ``icmp``.
        port: destination port; unused by ICMP.
        payload: what it carries in front of the cookie.
        listen: open a receiver at the destination first.
        timeout_s: how long to wait for an answer.
        witness: who watches; of both, one ladder of the better proofs is made. None: whatever the
            kernel offers.
    """

    protocol: str = "udp"
    port: int = 5000
    payload: bytes = b"hello"
    listen: bool = True
    timeout_s: float = 1.0
    witness: Witness | None = Witness.TRACEPOINTS


def follow(
    lab: Lab,
    sender: str,
    receiver: str,
    shot: Shot = Shot(),  # noqa: B008 (frozen)
    *,
    insist: bool = True,
) -> Recording:
    """Send one packet from one place to another; return it and what belongs to its flow.

    The packet itself is first: for TCP the segment with the payload, or the SYN if no connection
    came about.

    Args:
        lab: must be up.
        sender: pod, node or ``world``.
        receiver: the same, or an address.
        shot: what to send.
        insist: a packet of which nothing was seen is an error.

    Raises:
        UnsupportedError: functions are to watch, and this kernel lets none be probed.
        InputError: a name or protocol that does not exist.
        CheckFailed: nothing at all was seen of the packet.
    """
    if shot.protocol not in PROTOCOLS:
        raise InputError(
            f"{shot.protocol!r} is no protocol that can be sent", hint="udp, tcp or icmp"
        )
    source = lab.place(sender)
    destination, place = destination_of(lab, receiver)
    with ExitStack() as stack:
        tracer = open_tracer(lab, shot.witness)
        stack.callback(tracer.close)
        if shot.listen and place is not None and shot.protocol != "icmp":
            serve = place.serve_udp if shot.protocol == "udp" else place.serve_tcp
            stack.enter_context(serve(shot.port))
        recording = Recording()
        recording.destination = destination
        # asked of its routing table: a node or the world has several addresses
        own = source.call("source_of", address=destination)["address"] or str(source.address)
        recording.error = _fire(tracer, source, (own, destination), shot)
        recording.packets = _first(tracer.traces(), own)
    if insist and not recording.packets:
        said = ERRNO.get(recording.error)
        because = f": {said.what} ({recording.error})" if said else ""
        raise CheckFailed(
            f"nothing was seen of the {shot.protocol} packet from {sender} to {receiver}{because}",
            hint=said.change if said else "is the sender's interface up? try `lab exec`",
        )
    return recording


def client_port() -> int:
    """Return a port to send from that no other flow is likely to have: a flow is known by it."""
    return _FIRST_PORT + secrets.randbelow(_PORTS)


def destination_of(lab: Lab, receiver: str) -> tuple[str, Place | None]:
    """Return a receiver's address, and the place behind it (None for a bare address).

    Raises:
        InputError: neither a place of the lab nor an address.
    """
    try:
        return str(IPv4Address(receiver)), None
    except AddressValueError:
        place = lab.place(receiver)
        return str(place.address), place


def _fire(
    tracer: Tracer | BothTracers, source: Place, addresses: tuple[str, str], shot: Shot
) -> str:
    """Send the packet and wait for an answer; return what went wrong, in one word."""
    own, destination = addresses
    namespace = getattr(getattr(source, "facts", None), "netns", source.name)
    if shot.protocol == "udp":
        cookie, port = new_cookie(), client_port()
        tracer.only_cookie(cookie, sender=namespace, destination=destination, source_port=port)
        sent = source.send_udp(
            destination,
            shot.port,
            shot.payload,
            cookie=cookie,
            timeout_s=shot.timeout_s,
            source_port=port,
        )
        return sent.error
    if shot.protocol == "tcp":
        # one end of the connection keeps its name through every translation of the other
        port = client_port()
        tracer.only_flow(Flow(source=own, source_port=port, protocol=6))
        opened = source.connect(
            destination,
            shot.port,
            payload=shot.payload,
            timeout_s=shot.timeout_s,
            source_port=port,
        )
        return opened.error
    tracer.only_flow(Flow(source=own, destination=destination, protocol=1))
    ping = source.ping(destination, payload=shot.payload, timeout_s=shot.timeout_s)
    return "" if ping.ok else ping.errors[0][2] if ping.errors else "timeout"


def _first(traces: tuple[Trace, ...], own: str) -> tuple[Trace, ...]:
    """Put the packet that the shot is about in front."""
    sent = [trace for trace in traces if trace.packet.source == own]
    # TCP sets PSH on the segment with the payload; without one the SYN is what there is
    best = next((trace for trace in sent if "PSH" in trace.packet.info), sent[0] if sent else None)
    if best is None:
        return traces
    rest = tuple(trace for trace in traces if trace is not best)
    return (with_arriving_copy(best, rest), *rest)
