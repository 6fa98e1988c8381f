"""The upper end of the ladder: what transport and socket do with a packet, steps 14 to 19."""

from __future__ import annotations

from dataclasses import replace

from lab.observe.headers import ICMP, TCP
from lab.observe.neighbour import told_neighbour
from lab.observe.records import Kind, Record
from lab.observe.walk import DELIVER, TRANSPORT, Builder, Walk
from lab.trace import Evidence, SendHook, Side, Step

ACCEPTED = "accepted"
"""Verdict of a wake-up that is not for the packet itself but for the connection it completes."""
READ = "read"
ARP = "arp_rcv"
"""Hook of a message that ARP takes, behind step 9 and beside IP."""
_REQUEST = "tcp_conn_request"
_ARP_ENDS = frozenset({"arp_process", "arp_rcv"})
_AF_INET = 2
# TCP_ESTABLISHED is 1 (net/tcp_states.h)
_STATES = (
    "", "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT", "CLOSE",
    "CLOSE_WAIT", "LAST_ACK", "LISTEN", "CLOSING", "NEW_SYN_RECV",
)  # fmt: skip
_BY_KIND = {Kind.ROUTE: "on_route", Kind.TCP_SEGMENT: "on_tcp_segment"}


# they ask for the route of an answer about the packet: not the packet's own look-up
_ANSWERS = frozenset({"__icmp_send", "nf_send_reset"})


ARRIVALS = {
    Kind.DATA_READY: "_data_ready",
    Kind.SOCKET_READ: "_read",
    Kind.SOCKET_LOOKUP: "_looked_up",
    Kind.TCP_SEGMENT: "_segment",
    Kind.TCP_STATE: "_state",
    Kind.CGROUP_INGRESS: "_cgroup",
    Kind.CGROUP_EGRESS: "_cgroup",
    Kind.NEIGHBOUR: "_neighbour",
}
"""Which method takes a record of a kind."""

_CGROUPS = {
    Kind.CGROUP_INGRESS: ("cgroup_ingress", Side.RECEIVE),
    Kind.CGROUP_EGRESS: (SendHook.CGROUP.value, Side.SEND),
}


class Arrival(Builder):
    """Lines about the packet's transport and socket."""

    def _deliver_by_stack(self, record: Record, walk: Walk, stack: tuple[str, ...]) -> None:
        transport: tuple[str, ...] = TRANSPORT.get(walk.protocol, ())
        for step, functions in ((Step.IP_LOCAL_DELIVER, DELIVER), (Step.L4_RECEIVE, transport)):
            seen = next((name for name in functions if name in stack), "")
            if seen:
                self.by_stack(record, walk, step, functions[0], seen)

    def _neighbour(self, record: Record) -> None:
        told_neighbour(self, record)

    def _cgroup(self, record: Record) -> None:
        hook, side = _CGROUPS[record.kind]
        self.add(
            record, self.walk(record, side), hook, hook, evidence=Evidence.PROGRAM,
            reason="programs of the socket's control group run here",
        )  # fmt: skip

    def _data_ready(self, record: Record) -> None:
        family, port = record.arg >> 32, record.arg & 0xFFFFFFFF
        walk = self.walk(record, Side.RECEIVE)
        if family != _AF_INET:
            self._tapped(record, walk)
            return
        self._deliver_by_stack(record, walk, self.names.own_frames(record.stack))
        probe = "on_data_ready"
        # else on_readable wrote the record: fentry, where the tracepoint is missing
        grade = Evidence.TRACEPOINT if probe in self.names.programs else Evidence.PROBE
        wake = self.names.symbol(record.location) or "sk_data_ready"
        # a listener's queue holds connections, no packets: connection_ready() told
        if not record.packet and not record.length:
            self.add(
                record, walk, "data_ready", probe, step=Step.DATA_READY, evidence=grade,
                verdict=ACCEPTED, reason=f"{wake} wakes the listener of port {port}: the "
                "connection that the packet completes waits to be accepted",
            )  # fmt: skip
            return
        # the kernel notes a use in whole seconds: equal times prove nothing
        checked = walk.taken(Step.XFRM_POLICY_L4)
        if walk.policy_used is not None and record.reason > walk.policy_used and not checked:
            self.add(
                record, walk, "xfrm_policy_l4", probe, step=Step.XFRM_POLICY_L4,
                evidence=Evidence.COUNTER, verdict="accept",
                reason="an IPsec policy noted its use between steps 14 and 18",
            )  # fmt: skip
        queued = f"newest of {record.verdict} in the queue of port {port}"
        if not record.packet:
            queued = f"its data was appended to the packet before it in the queue of port {port}"
        self.add(
            record, walk, "socket_queue", probe, step=Step.RECEIVE_QUEUE, evidence=grade,
            verdict="queued", reason=queued,
        )  # fmt: skip
        self.add(
            record, walk, "data_ready", probe, step=Step.DATA_READY, evidence=grade,
            verdict="delivered", reason=f"{wake} wakes the reader of port {port}",
        )  # fmt: skip

    def _tapped(self, record: Record, walk: Walk) -> None:
        self.add(
            record, walk, "check_taps", "on_data_ready", step=Step.CHECK_TAPS,
            reason="a packet socket was woken with its copy",
        )  # fmt: skip

    def _read(self, record: Record) -> None:
        """The application's system call came back with the data."""
        walk = next((walk for walk in reversed(self.walks) if walk.netns == record.netns), None)
        if walk is None or not walk.taken(Step.DATA_READY):
            return
        name = record.packet.split(b"\0")[0].decode(errors="replace")
        self.add(
            # these bytes are the reader's name, not the packet's
            replace(record, packet=b""), walk, READ, "on_socket_read",
            reason=f"{name} (process {record.hash}) read {record.verdict} bytes "
            f"from port {record.arg}",
        )  # fmt: skip

    def _looked_up(self, record: Record) -> None:
        """The transport asked for the packet's socket; the ports say that it was this packet's."""
        walk = self.walks[-1] if self.walks else None
        ports = (record.arg >> 16, record.arg & 0xFFFF)
        if walk is None or walk.side is not Side.RECEIVE or walk.ports != ports:
            return
        if walk.protocol != record.verdict or walk.taken(Step.L4_RECEIVE):
            return
        if not (walk.taken(Step.IP_ROUTING) or walk.taken(Step.IP_LOCAL_DELIVER)):
            return  # a program on the way asked (bpf_sk_lookup_udp), not the transport
        self.add(
            record, walk, TRANSPORT[walk.protocol][0], "on_socket_lookup", step=Step.L4_RECEIVE,
            evidence=Evidence.PROGRAM, reason=f"it asks whose packet to port {ports[1]} this is",
        )  # fmt: skip

    def _segment(self, record: Record) -> None:
        walk = self.walk(record, Side.RECEIVE)
        self._deliver_by_stack(record, walk, self.names.own_frames(record.stack))
        self._say(record, walk, "on_tcp_segment", "tcp_rcv_established takes the segment")

    def _state(self, record: Record) -> None:
        """A change of state belongs to the packet if socket and packet have the same ports."""
        walk = self.walks[-1] if self.walks else None
        stack = self.names.own_frames(record.stack)
        receiving = any(name in TRANSPORT[TCP] for name in stack)
        # outside of reception it is the application's doing (connect, close) or a timer's
        if walk is None or not receiving or walk.ports[0] != record.hash:
            return
        if record.arg not in (0, walk.ports[1]):  # 0: closed, its own port is given back
            return
        before, now = (_STATES[number % len(_STATES)] for number in divmod(record.verdict, 256))
        self._say(record, walk, "on_tcp_state", f"the connection goes from {before} to {now}")

    def _say(self, record: Record, walk: Walk, probe: str, clause: str) -> None:
        """Let a tracepoint prove that the transport has the packet, and tell what it does."""
        hook = TRANSPORT[walk.protocol][0]
        index = walk.last(hook)
        if index is None:
            self.add(record, walk, hook, probe, step=Step.L4_RECEIVE, reason=clause)
            return
        hop = walk.hops[index]
        told = hop.evidence is Evidence.TRACEPOINT
        walk.hops[index] = replace(
            hop,
            evidence=Evidence.TRACEPOINT,
            object=hop.object if told else self.names.object(probe),
            reason=f"{hop.reason}; {clause}" if told else clause,
        )

    def _used_up(self, record: Record, walk: Walk, location: str, stack: tuple[str, ...]) -> None:
        """The buffer ended in peace inside the transport."""
        if walk.arp and _ARP_ENDS & {location, *stack} and walk.last(ARP) is None:
            self.add(
                record, walk, ARP, "on_consume", verdict="consumed", reason=f"used up in {location}"
            )
            return
        functions = TRANSPORT.get(walk.protocol, ())
        seen = next((name for name in (location, *stack) if name in functions), "")
        if not seen:
            return
        index = walk.last(functions[0])
        if index is None:
            self.add(
                record, walk, functions[0], "on_consume", step=Step.L4_RECEIVE,
                verdict="consumed", reason=f"used up in {seen}",
            )  # fmt: skip
            return
        hop = walk.hops[index]
        walk.hops[index] = replace(
            hop,
            evidence=Evidence.TRACEPOINT,
            verdict="consumed",
            object=self.names.object("on_consume"),
            # that a request socket was made of it says more than where its buffer ended
            reason=hop.reason if walk.request else f"used up in {seen}",
        )

    def _asked_by_transport(self, record: Record, walk: Walk, stack: tuple[str, ...]) -> bool:
        """The route of an answer is asked for while the packet is still being received."""
        functions: tuple[str, ...] = TRANSPORT.get(walk.protocol, ())
        seen = next((name for name in functions if name in stack), "")
        if walk.side is Side.RECEIVE and not _ANSWERS.isdisjoint(stack):
            return True  # the question of an ICMP error or a reset about this packet
        if not seen or walk.side is not Side.RECEIVE:
            return False
        self.by_stack(record, walk, Step.L4_RECEIVE, functions[0], seen)
        index = walk.last(functions[0])
        if _REQUEST in stack and index is not None:
            walk.request = True
            walk.hops[index] = replace(
                walk.hops[index],
                reason=f"{_REQUEST}: the listener keeps a request socket and answers SYN,ACK",
            )
        return True


def end_inside(walk: Walk) -> str:
    """Say what becomes of a packet that was not seen again."""
    if walk.cut_into:
        return f"the transport cut it into packets {walk.cut_into}, which go on for it"
    if walk.arp and walk.last(ARP) is not None:
        return "an ARP message: arp_rcv takes it, and IP never sees it"
    if walk.taken(Step.L4_RECEIVE) and walk.protocol == ICMP:
        return "ICMP answers an echo request itself: no socket's queue is involved"
    if walk.taken(Step.L4_RECEIVE) and walk.protocol == TCP:
        if walk.request:
            return "a SYN is kept in a request socket: it wakes nobody"
        return "TCP took it in itself: a segment without data wakes nobody"
    if walk.taken(Step.IP_LOCAL_DELIVER) and walk.protocol == TCP:
        return "nothing told of it: it may wait in the backlog of a socket that is in use"
    return "nothing was seen of the packet behind this point"
