"""Two live hosts, the wire between them and the recorder at both ends.

The calling process owns everything: the namespaces, devices, programs and the wire's process end
with it, however it ends.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Self

from lab.errors import CheckFailed, PrerequisiteError, UnsupportedError
from lab.kernel import link
from lab.kernel.netns import NetworkNamespace
from lab.kernel.tap import open_tap
from lab.waiting import eventually
from lab.wire import netem
from lab.wire.endpoint import Endpoint, SocketOptions
from lab.wire.events import EventPrograms
from lab.wire.hosts import PINNED, Host, Medium, TwoHosts
from lab.wire.ingress import IngressPrograms
from lab.wire.line import Line
from lab.wire.loop import Journal
from lab.wire.record import CLIENT, SERVER, Decoder, flights_over_veth, flights_over_wire
from lab.wire.recording import Recording
from lab.wire.rules import Rule, Script, Way
from lab.wire.tun import Pinger, Tun

ADDRESS = {CLIENT: "10.9.0.1", SERVER: "10.9.0.2"}
MAC = {CLIENT: "02:00:0a:09:00:01", SERVER: "02:00:0a:09:00:02"}
IFINDEX = {CLIENT: 2, SERVER: 3}
DEVICE = "eth0"
PORT = 5000
_LOOPBACK = 1
# NUD_PERMANENT: no ARP, whose packets would be counted
_PERMANENT = 0x80
_TUN_INDEX = 4
_APPLICATION_PRIORITY = 5  # below the wire itself
_QUIET_MS = 25.0
_DEFAULT = SocketOptions()


class Bench:
    """Two hosts as :class:`TwoHosts` describes them, alive inside a ``with`` block.

    Attributes:
        hosts: the description.
        client: the live client.
        server: the live server.
    """

    client: Host
    server: Host

    def __init__(self, hosts: TwoHosts) -> None:
        self.hosts = hosts
        self._stack = ExitStack()
        self._line: Line | None = None
        self._sockets: list[Endpoint] = []
        self._script = hosts.script
        self._scripts: list[netem.Since] = []
        self._spaces: dict[str, NetworkNamespace] = {}
        self._aside: Callable[[Callable[[], None]], None]

    def __enter__(self) -> Self:
        if os.geteuid() != 0:
            raise PrerequisiteError(
                "two hosts on a wire need namespaces", hint="run as root (sudo)"
            )
        with ExitStack() as stack:
            # netlink in a thread of its own: pyroute2 brings an event loop along, and where one
            # runs already, as in a notebook, there must not be another
            netlink = ThreadPoolExecutor(max_workers=1, thread_name_prefix="netlink")
            stack.callback(netlink.shutdown)
            self._aside = lambda work: netlink.submit(work).result()
            self._aside(lambda: self._build(stack))
            self.impair(*self.hosts.rules)
            stack.callback(_prefer_this_thread())
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # a socket with unacknowledged data would keep its namespace alive for seconds
        for endpoint in self._sockets:
            if endpoint.raw.fileno() >= 0:
                endpoint.reset()
        self._stack.close()

    def impair(self, *rules: Rule) -> None:
        """Replace the script; ordinals count from now. Without rules the wire is perfect again.

        Raises:
            InputError: the rules contradict each other.
            UnsupportedError: the medium cannot carry one out.
        """
        script = Script(rules)
        script.check_frame_fits(self.hosts.mtu_bytes)
        if self.hosts.medium is Medium.NETEM:
            self._aside(lambda: self._ask_netem(script))
        elif self._line is not None:
            self._line.change(script, delay_ms=self.hosts.delay_ms)
        else:
            receivers = {Way.TO_SERVER: IFINDEX[SERVER], Way.TO_CLIENT: IFINDEX[CLIENT]}
            self._programs.change(script, receivers)
        # only now: what was refused is not in force, and no recording says so
        self._script = script

    def connect(
        self, client: SocketOptions = _DEFAULT, server: SocketOptions = _DEFAULT, port: int = PORT
    ) -> tuple[Endpoint, Endpoint]:
        """Open a connection and return its client and server end.

        Raises:
            CheckFailed: the handshake did not succeed within 20 s.
            UnsupportedError: an option the kernel does not have.
        """
        with self.listen(server, port=port) as listener:
            ours = self.endpoint(client)
            try:
                ours.raw.connect((ADDRESS[SERVER], port))
                accepted, _ = listener.accept()
            except OSError as error:
                raise CheckFailed(
                    f"no connection to the server's port {port}: {error}",
                    hint="look at the ladder: which part of the handshake was lost?",
                ) from None
        # again on the connection: not every option is inherited from the listener
        server.apply(accepted)
        return ours, self.adopt(SERVER, accepted)

    def connect_with_window(
        self, window_bytes: int, *, receive_buffer_bytes: int = 60_000, quiet_ms: float = _QUIET_MS
    ) -> tuple[Endpoint, Endpoint]:
        """Open a connection whose server never advertises more than ``window_bytes``.

        Two full-size segments have been sent, read and acknowledged when it returns: with 1000
        bytes each the stream goes on at byte 2001.

        Args:
            window_bytes: at least two segments.
            receive_buffer_bytes: of the server.
            quiet_ms: silence to wait for at the end.

        Raises:
            CheckFailed: the handshake or the two segments did not succeed within 20 s.
        """
        options = SocketOptions(
            receive_buffer_bytes=receive_buffer_bytes, window_clamp_bytes=window_bytes
        )
        client, server = self.connect(server=options)
        # the answer to the first segment waits for the second: it must not tell of a limit that
        # the kernel chooses by itself at the sight of the first full-size segment
        server.set_quick_ack(False)
        client.send(self.hosts.mss_bytes)
        server.wait_readable()
        server.limit_window(window_bytes)
        client.send(self.hosts.mss_bytes)
        server.receive(2 * self.hosts.mss_bytes)
        self.wait_quiet(for_ms=quiet_ms)
        return client, server

    def listen(
        self, options: SocketOptions = _DEFAULT, *, port: int = PORT, backlog: int = 16
    ) -> socket.socket:
        """Return a listening socket of the server."""
        listener = self.server.socket()
        self._stack.callback(listener.close)
        options.apply(listener)
        # earlier connections of the experiment may still be in TIME_WAIT on this port
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((ADDRESS[SERVER], port))
        listener.listen(backlog)
        listener.settimeout(20.0)
        return listener

    def endpoint(self, options: SocketOptions = _DEFAULT) -> Endpoint:
        """Return a client end that is not connected yet."""
        raw = self.client.socket()
        options.apply(raw)
        made = Endpoint(CLIENT, raw)
        self._sockets.append(made)
        return made

    def datagram_sockets(self, room_bytes: int = 0) -> tuple[socket.socket, socket.socket]:
        """Return a UDP socket of the client, connected to one of the server's.

        Args:
            room_bytes: the server's receive buffer, as given to ``SO_RCVBUF``; 0 for the default.
        """
        theirs = self.server.socket(socket.SOCK_DGRAM)
        self._stack.callback(theirs.close)
        if room_bytes:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room_bytes)
        theirs.bind(self.server_address)
        ours = self.client.socket(socket.SOCK_DGRAM)
        self._stack.callback(ours.close)
        ours.connect(self.server_address)
        return ours, theirs

    def open_tun(self) -> Tun:
        """Give the server a network 10.8.0.0/24 that lives in this program, with a route to it.

        The server has 10.8.0.1 there and forwards; every other address is the program's to
        answer for.
        """
        tun = Tun(open_tap(self.server.namespace, "tun0", index=_TUN_INDEX, frames=False))
        self._stack.callback(tun.close)
        self._aside(self._route_to_tun)
        return tun

    def _route_to_tun(self) -> None:
        server = self.server.namespace
        link.add_address(server, _TUN_INDEX, "10.8.0.1/24")
        link.set_up(server, _TUN_INDEX)
        self.server.set_sysctl("ipv4.ip_forward", "1")
        link.add_route(self.client.namespace, IFINDEX[CLIENT], "10.8.0.0/24", via=ADDRESS[SERVER])

    def pinger(self, address: str) -> Pinger:
        """Return what sends ICMP echo requests from the client to ``address``."""
        with self.client.namespace.entered():
            raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        self._stack.callback(raw.close)
        return Pinger(raw, address)

    def remove_device(self, host: Host) -> None:
        """Take a host's device towards the wire away."""
        self._aside(lambda: link.delete(host.namespace, host.ifindex))

    @property
    def server_address(self) -> tuple[str, int]:
        """Where the server listens."""
        return ADDRESS[SERVER], PORT

    def accepts(self, listener: socket.socket) -> bool:
        """Accept one connection if there is one within the listener's timeout."""
        try:
            accepted, _ = listener.accept()
        except TimeoutError:
            return False
        self.adopt(SERVER, accepted)
        return True

    @staticmethod
    def readable(raw: socket.socket) -> bool:
        """Whether something can be read from a socket now."""
        return bool(select.select([raw], [], [], 0)[0])

    def reuses(self, port: int) -> bool:
        """Try to bind a new socket of the client to a port it has used."""
        with self.client.socket() as probe:
            try:
                probe.bind((ADDRESS[CLIENT], port))
            except OSError:
                return False
        return True

    def adopt(self, host: str, raw: socket.socket) -> Endpoint:
        """Return an accepted socket as an endpoint that goes with the bench."""
        made = Endpoint(host, raw)
        self._sockets.append(made)
        return made

    def transfer(self, sender: Endpoint, receiver: Endpoint, count: int) -> None:
        """Send so many bytes of the known stream while the receiver reads as fast as it can.

        Raises:
            CheckFailed: nothing moved for 20 s.
        """
        wanted = sender.sent + count
        begun = receiver.received
        while receiver.received - begun < count:
            writers = [sender.raw] if sender.sent < wanted else []
            # one thread for both ends: if each waited for the other, a full buffer would stop both
            readable, writable, _ = select.select([receiver.raw], writers, [], 20.0)
            if not readable and not writable:
                raise CheckFailed(
                    f"{receiver.received - begun} of {count} bytes came, then nothing for 20 s",
                    hint="look at the ladder: where did the last segment go?",
                )
            if writable:
                sender.send_some(wanted - sender.sent)
            if readable:
                receiver.receive_once()

    def deliver(
        self, sender: Endpoint, receiver: Endpoint, count: int, *, quiet_ms: float = 0.0
    ) -> None:
        """Send so many bytes of the known stream, wait until the wire is quiet, then read them.

        Nobody touches a socket meanwhile: a segment that arrives while its socket is in use waits
        and may be merged with the next, and then the answers depend on the scheduler.

        Args:
            sender: has room for everything in its send buffer.
            receiver: has room for everything in its window.
            count: bytes.
            quiet_ms: how long nothing may pass; as for :meth:`wait_quiet` if 0.

        Raises:
            CheckFailed: the bytes did not come.
        """
        sender.send(count)
        self.wait_quiet(for_ms=quiet_ms)
        receiver.receive(count)

    @staticmethod
    def now_ns() -> int:
        """Return the time on the clock of the recording."""
        return time.monotonic_ns()

    def wait_ms(self, duration_ms: float) -> None:
        """Let time pass: the think time of an application."""
        until = time.monotonic() + duration_ms / 1e3
        eventually(
            lambda: time.monotonic() >= until,
            within_s=duration_ms / 1e3 + 5,
            every_s=0.001,
            what=f"{duration_ms} ms",
        )

    def wait_quiet(self, for_ms: float = 0.0, within_s: float = 30.0) -> None:
        """Wait until no packet has passed either end for a while.

        Args:
            for_ms: how long nothing may pass; two round trips and 25 ms if 0.
            within_s: deadline.

        Raises:
            CheckFailed: the hosts never stop talking.
        """
        pause_ns = round((for_ms or 4 * self.hosts.delay_ms + _QUIET_MS) * 1e6)
        last = (self._programs.count(), time.monotonic_ns())

        def quiet() -> bool:
            nonlocal last
            count, now_ns = self._programs.count(), time.monotonic_ns()
            if count != last[0]:
                last = (count, now_ns)
            return now_ns - last[1] >= pause_ns

        eventually(quiet, within_s=within_s, every_s=0.002, what="a quiet wire")

    def wait_until(self, condition: Callable[[], bool], what: str, within_s: float = 20.0) -> None:
        """Wait for a condition of the experiment.

        Raises:
            CheckFailed: it did not come true in time.
        """
        eventually(condition, within_s=within_s, what=what)

    def journal(self) -> Journal:
        """Return what the TAP wire carried, without the kernel's log and its limit.

        Raises:
            UnsupportedError: the hosts are joined by a veth pair.
        """
        if self._line is None:
            raise UnsupportedError(
                "a veth pair keeps no journal", hint="join the hosts with medium=Medium.WIRE"
            )
        return self._line.journal()

    def recording(self) -> Recording:
        """Return everything seen so far."""
        # decoding takes long and nothing depends on when: other experiments go first
        with _ordinary():
            return self._read_recording()

    def _read_recording(self) -> Recording:
        observations = self._programs.observations()
        segments = Decoder(IFINDEX[CLIENT]).segments(observations)
        journal = self._line.journal() if self._line else None
        unmet = journal.unmet if journal else self._programs.unmet()
        if journal:
            flights = flights_over_wire(segments, journal.passages)
        elif self._scripts:
            flights = netem.flights(segments, self._scripts)
            unmet = netem.unmet(flights, self._scripts[-1])
        else:
            flights = flights_over_veth(segments, observations)
        return Recording(
            segments=segments,
            flights=flights,
            passages=journal.passages if journal else (),
            events=self._events.events(),
            script=self._script,
            unmet=unmet,
            counters=(self.client.counters(), self.server.counters()),
            mss_bytes=self.hosts.mss_bytes,
            delay_ms=self.hosts.delay_ms,
        )

    def _build(self, stack: ExitStack) -> None:
        spaces = {name: NetworkNamespace.create(name) for name in (CLIENT, SERVER)}
        for space in spaces.values():
            stack.callback(self._aside, space.close)
        for space in spaces.values():
            for key, value in (*PINNED, *self.hosts.sysctls):
                space.set_sysctl(key, value)
        if self.hosts.medium is Medium.WIRE:
            taps = []
            for name, space in spaces.items():
                taps.append(open_tap(space, DEVICE, index=IFINDEX[name]))
                stack.callback(os.close, taps[-1])
            self._line = Line(*taps)
            stack.callback(self._line.close)
        else:
            self._join_by_veth(*spaces.values())
        for name, space in spaces.items():
            self._set_up(name, space)
        self._spaces = spaces
        # after the devices are up: what the kernel says on its own then is no part of the recording
        self._programs = IngressPrograms()
        stack.callback(self._programs.close)
        self._events = EventPrograms(*(space.inode for space in spaces.values()))
        stack.callback(self._events.close)
        for name, space in spaces.items():
            self._programs.attach(space, IFINDEX[name])
        self.client, self.server = (
            Host(name, ADDRESS[name], IFINDEX[name], space) for name, space in spaces.items()
        )

    def _ask_netem(self, script: Script) -> None:
        for way, name in ((Way.TO_SERVER, CLIENT), (Way.TO_CLIENT, SERVER)):
            wanted = netem.translate(script, delay_ms=self.hosts.delay_ms, way=way)
            netem.attach(self._spaces[name], IFINDEX[name], wanted)
        self._scripts.append(netem.Since(time.monotonic_ns(), script))

    def _join_by_veth(self, client: NetworkNamespace, server: NetworkNamespace) -> None:
        # numbered by the kernel in a fresh namespace: the peer is 2, the device itself 3; an end
        # that moves keeps its number
        client.request("link", "add", ifname="server", kind="veth", peer={"ifname": DEVICE})
        client.request("link", "set", index=IFINDEX[SERVER], net_ns_fd=server.fd)
        server.request("link", "set", index=IFINDEX[SERVER], ifname=DEVICE)

    def _set_up(self, name: str, space: NetworkNamespace) -> None:
        index, peer = IFINDEX[name], SERVER if name == CLIENT else CLIENT
        # one segment per packet at every hook: the kernel would merge them into one large buffer
        space.request(
            "link", "set", index=index, address=MAC[name], mtu=self.hosts.mtu_bytes, gso_max_segs=1
        )
        link.set_up(space, _LOOPBACK)
        link.set_up(space, index)
        link.add_address(space, index, f"{ADDRESS[name]}/32")
        # of the route: sockets take these windows from it, whatever the kernel's defaults are
        metrics = {"initcwnd": self.hosts.initial_window, "initrwnd": 64}
        if self.hosts.quick_ack:
            metrics["quickack"] = 1
        space.request(
            "route", "add", dst=f"{ADDRESS[peer]}/32", oif=index, scope=253, metrics=metrics
        )
        space.request(
            "neigh", "add", dst=ADDRESS[peer], lladdr=MAC[peer], ifindex=index, state=_PERMANENT
        )


def _prefer_this_thread() -> Callable[[], None]:
    """Run the calling thread, the application of both hosts, before the machine's other work.

    Think times then last as long as the experiment says. Returns what takes the preference back;
    without the right to set it nothing changes.
    """
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        os.sched_setscheduler(
            0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(_APPLICATION_PRIORITY)
        )
    except OSError:
        return lambda: None
    return lambda: os.sched_setscheduler(0, policy, parameters)


@contextmanager
def _ordinary() -> Iterator[None]:
    """Run the block at ordinary priority; afterwards the thread has the one it had before."""
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    try:
        yield
    finally:
        # gaining real-time priority takes a right that the thread had when it got it first
        os.sched_setscheduler(0, policy, parameters)
