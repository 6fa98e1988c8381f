"""The live side of a description: a running lab, its nodes and its pods."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from ipaddress import IPv4Address
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from lab.errors import CheckFailed, InputError, KernelError
from lab.kernel.process import Completed
from lab.model import Topology
from lab.names import did_you_mean
from lab.packets import new_cookie, with_cookie
from lab.plan.inventory import Inventory, NodeFacts, PodFacts, from_json, inventory
from lab.runtime import registry
from lab.runtime.control import Control, NodeAgent
from lab.runtime.flows import Flows, address_of
from lab.runtime.messages import Closed, receive, send
from lab.runtime.start import KeeperProcess, Progress, attach, raise_error, start, unique_name
from lab.trace import Witness
from lab.trace.own import Probe
from lab.traffic.results import Connection, Datagram, Ping

if TYPE_CHECKING:
    from lab.datapath.maps import MapView
    from lab.observe.own import OwnProbe
    from lab.observe.recording import Recording
    from lab.observe.tracer import Flow
    from lab.observe.watch import Watch

WORKER = "lab.traffic.worker"


class Place(Flows):
    """A node, a pod or the world: somewhere commands run and packets leave.

    Attributes:
        name: unique in the lab.
    """

    def __init__(self, lab: Lab, name: str, address: IPv4Address) -> None:
        self.name = name
        self.address = address
        self._lab = lab
        self._worker: socket.socket | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._lab.name}/{self.name} {self.address}>"

    def call(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """Run one operation of :mod:`lab.traffic.operations` in a process born in this place.

        Raises:
            LabError: what the operation raised.
        """
        if self._worker is None:
            # one process for all calls: a fork of the keeper with a view of its own takes longer
            # than most of what is asked
            self._worker = self._lab.keeper.spawn(WORKER, self.name)
            # the first message says that it is ready, or why it cannot be
            raise_error(receive(self._worker)[0])
        try:
            send(self._worker, {"call": operation, "arguments": arguments})
            answer, _ = receive(self._worker)
        except Closed:
            self.close()
            raise KernelError(
                f"{operation} in {self.name!r}: its process ended",
                hint=f"is lab {self._lab.name!r} still up?",
            ) from None
        raise_error(answer)
        result: dict[str, Any] = answer["result"]
        return result

    def run(
        self, argv: Sequence[str], *, stdin: str = "", timeout_s: float = 60.0, check: bool = False
    ) -> Completed:
        """Run a command here to its end.

        Raises:
            CheckFailed: ``check`` is set and the command failed; its stderr is in the message.
        """
        answer = self.call("run", argv=list(argv), stdin=stdin, timeout_s=timeout_s)
        done = Completed(argv=tuple(argv), **answer)
        if check and done.returncode:
            raise CheckFailed(
                f"{' '.join(argv)} in {self.name!r} ended with {done.returncode}: "
                f"{done.stderr.strip()}",
                hint="run it by hand with `lab exec`",
            )
        return done

    def ping(
        self,
        to: Destination,
        *,
        count: int = 1,
        payload: bytes = b"",
        timeout_s: float = 1.0,
        ttl: int = 64,
    ) -> Ping:
        """Send ICMP echo requests one after the other; each carries a cookie."""
        # the cookie lets a tracer know these packets among all others, translated or encapsulated
        data = with_cookie(payload, new_cookie()).hex()
        result = self.call(
            "ping", address=address_of(to), count=count, payload=data, timeout_s=timeout_s, ttl=ttl
        )
        return Ping(
            sent=result["sent"],
            rtt_us=tuple(result["rtt_us"]),
            errors=tuple((kind, code, sender) for kind, code, sender in result["errors"]),
        )

    def connect(
        self,
        to: Destination,
        port: int,
        *,
        payload: bytes = b"",
        timeout_s: float = 2.0,
        source_port: int = 0,
    ) -> Connection:
        """Open a TCP connection, send the payload and read until as much came back."""
        result = self.call(
            "tcp_connect",
            address=address_of(to),
            port=port,
            payload=payload.hex(),
            timeout_s=timeout_s,
            source_port=source_port,
        )
        return Connection(**{**result, "reply": bytes.fromhex(result["reply"])})

    def send_udp(
        self,
        to: Destination,
        port: int,
        payload: bytes = b"hello",
        *,
        cookie: int = 0,
        timeout_s: float = 2.0,
        source_port: int = 0,
        want_reply: bool = True,
    ) -> Datagram:
        """Send one datagram with a cookie at its end and wait for the reply."""
        cookie = cookie or new_cookie()
        result = self.call(
            "udp_send",
            address=address_of(to),
            port=port,
            payload=with_cookie(payload, cookie).hex(),
            timeout_s=timeout_s,
            source_port=source_port,
            want_reply=want_reply,
        )
        return Datagram(**{**result, "reply": bytes.fromhex(result["reply"]), "cookie": cookie})

    def inject(self, frame: bytes, *, device: str = "eth0", await_s: float = 0.0) -> list[bytes]:
        """Put a frame on a device; return the frames that came in within ``await_s`` seconds."""
        result = self.call("inject", frame=frame.hex(), device=device, await_reply_s=await_s)
        return [bytes.fromhex(item) for item in result["frames"]]

    @contextmanager
    def serve_udp(self, port: int, *, reply: bytes = b"") -> Iterator[Server]:
        """Answer datagrams on a port inside the block: with ``reply``, or what was sent."""
        with self._serve("udp", port, reply) as server:
            yield server

    @contextmanager
    def serve_tcp(self, port: int, *, reply: bytes = b"") -> Iterator[Server]:
        """Accept connections on a port inside the block: answer ``reply``, or echo."""
        with self._serve("tcp", port, reply) as server:
            yield server

    @contextmanager
    def _serve(self, protocol: str, port: int, reply: bytes) -> Iterator[Server]:
        arguments = {"protocol": protocol, "port": port, "reply": reply.hex()}
        # a process of its own, beside the worker: the worker answers one call at a time, and a
        # client in the same place would wait for a server that waits for it
        connection = self._lab.keeper.spawn(WORKER, self.name, server=arguments)
        try:
            # it listens once it has answered: whoever connects from here on is not refused
            answer, _ = receive(connection)
            raise_error(answer)
            yield Server(connection, answer["port"])
        finally:
            # its port is free again once its end is closed; whoever served may be gone with the lab
            with suppress(OSError):
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(1):
                    pass
            connection.close()

    def close(self) -> None:
        """End this place's worker; idempotent."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None


class Server:
    """A server inside a pod; it ends with the block that started it.

    Attributes:
        port: it listens on.
    """

    def __init__(self, connection: socket.socket, port: int) -> None:
        self.port = port
        self._connection = connection

    def report(self) -> dict[str, Any]:
        """Return ``received`` (connections or datagrams), ``bytes`` and ``peers`` so far."""
        send(self._connection, {})
        result: dict[str, Any] = receive(self._connection)[0]["result"]
        return result

    @property
    def received(self) -> int:
        """How many datagrams or connections came."""
        return int(self.report()["received"])


class LivePod(Place):
    """A running pod; what it was described as is in ``facts``."""

    def __init__(self, lab: Lab, facts: PodFacts) -> None:
        super().__init__(lab, facts.name, facts.address)
        self.facts = facts

    @property
    def node(self) -> LiveNode:
        """The node it runs on."""
        return self._lab.node(self.facts.node)


class LiveNode(Place):
    """A running node; what it was described as is in ``facts``."""

    def __init__(self, lab: Lab, facts: NodeFacts) -> None:
        super().__init__(lab, facts.name, facts.address)
        self.facts = facts

    def pin(self, *parts: str) -> str:
        """Return the path of a pin in this node's BPF file system, as seen from outside."""
        from lab.plan.steps import bpffs

        # the node's bpffs is mounted in the keeper's mount namespace only, reachable through
        # /proc/PID/root
        return str(self._lab.keeper.root) + "/".join((bpffs(self.name), *parts))

    def map(self, name: str) -> MapView[Any, Any]:
        """Open one of this node's pinned maps with its own structures; close it after use.

        Args:
            name: of the pin, for example ``cilium_ipcache`` or ``cilium_policy_00266``.

        Raises:
            InputError: the lab knows no layout for it.
            KernelError: it is not pinned here.
        """
        from lab.datapath.maps import open_view

        return open_view(Path(self.pin()), name)

    @property
    def agent(self) -> NodeAgent:
        """The agent's view of this node."""
        return NodeAgent(self._lab.agent, self.name)


Destination = Place | str | IPv4Address


class Lab(Control):
    """A running lab. ``with Lab(topology) as lab:`` builds it and takes it down after the block.

    The lab is owned by its keeper process: it also goes when this process dies, however it dies.

    Args:
        topology: what to build.
        name: unique on the machine; by default the topology's name with a number.
        engine: ``netns`` (in process) or ``mininet``.
        progress: called with (steps done, steps in all) while building.
        fault: a provoked failure, for tests.

    Attributes:
        probes: the user's own that run now: what they see stands in every trace.

    Raises:
        PrerequisiteError: not root, or something is not installed.
        LabError: anything else that went wrong; nothing is left behind.
    """

    def __init__(
        self,
        topology: Topology,
        *,
        name: str | None = None,
        engine: str = "netns",
        progress: Progress | None = None,
        fault: dict[str, Any] | None = None,
    ) -> None:
        self.topology = topology
        self.name = name or unique_name(topology)
        self.engine = engine
        self._progress = progress
        self._fault = fault
        self._keeper: KeeperProcess | None = None
        self._guest = False
        self._facts: Inventory = inventory(topology)
        self._places: dict[str, Place] = {}
        self.probes: list[OwnProbe] = []

    @classmethod
    def attach(cls, name: str) -> Lab:
        """Return a lab that ``lab up`` started; closing it leaves it up, as its ``with`` does.

        Raises:
            InputError: no lab of that name is up.
        """
        keeper = attach(name)
        answer, _ = keeper.ask(op="describe")
        # the topology as it is now: pods may have come and gone since `lab up`
        facts = from_json(answer)
        lab = cls(facts.topology, name=name, engine=keeper.record.engine)
        lab._keeper, lab._facts, lab._guest = keeper, facts, True
        return lab

    def start(self, *, attached: bool = True) -> Lab:
        """Build the lab; with ``attached=False`` it stays up after this process."""
        self._keeper = start(
            self.topology,
            name=self.name,
            engine=self.engine,
            attached=attached,
            progress=self._progress,
            fault=self._fault,
        )
        return self

    def __enter__(self) -> Lab:
        return self if self._keeper is not None else self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._guest:
            self.close()
        else:
            self.stop()

    @property
    def keeper(self) -> KeeperProcess:
        """The process that owns the lab.

        Raises:
            InputError: the lab is not up.
        """
        if self._keeper is None:
            raise InputError(
                f"lab {self.name!r} is not up", hint="use it inside `with Lab(topology) as lab:`"
            )
        return self._keeper

    @property
    def facts(self) -> Inventory:
        """All names, addresses and numbers of the lab."""
        return self._facts

    def pod(self, name: str) -> LivePod:
        """Return the pod called ``POD`` or ``NAMESPACE/POD``.

        Raises:
            TopologyError: no such pod; the hint names the nearest.
        """
        facts = self._facts.pod(name)
        place = self._places.get(facts.name)
        if not isinstance(place, LivePod):
            place = self._places[facts.name] = LivePod(self, facts)
        # other labels are another identity; its process and those who hold the place stay
        place.facts = facts
        return place

    def node(self, name: str) -> LiveNode:
        """Return a node.

        Raises:
            TopologyError: no such node; the hint names the nearest.
        """
        facts = self._facts.node(name)
        place = self._places.get(name)
        if not isinstance(place, LiveNode):
            place = self._places[name] = LiveNode(self, facts)
        # its pods come and go
        place.facts = facts
        return place

    @property
    def world(self) -> Place:
        """The namespace outside the cluster, with address 203.0.113.10."""
        if "world" not in self._places:
            self._places["world"] = Place(self, "world", self._facts.world_client)
        return self._places["world"]

    @property
    def underlay(self) -> Place:
        """The namespace of the bridge between the nodes."""
        if "underlay" not in self._places:
            self._places["underlay"] = Place(self, "underlay", self._facts.gateway)
        return self._places["underlay"]

    def place(self, name: str) -> Place:
        """Return a pod, a node, ``world`` or ``underlay`` by name.

        Raises:
            InputError: nothing is called so; the hint names the nearest.
        """
        if name in ("world", "underlay"):
            return self.world if name == "world" else self.underlay
        nodes = {node.name for node in self._facts.nodes}
        if name in nodes:
            return self.node(name)
        pods = {pod.name for pod in self._facts.pods}
        # what lab.facts calls a pod of the namespace `default` has no namespace in its name
        if name.removeprefix("default/") in pods:
            return self.pod(name)
        raise InputError(
            f"{name!r} is no pod or node of lab {self.name!r}",
            hint=did_you_mean(name, nodes | pods | {"world", "underlay"}),
        )

    def _let_go(self, name: str) -> None:
        place = self._places.pop(name, None)
        if place is not None:
            place.close()

    def trace(
        self, *, flow: Flow | None = None, stacks: bool = True
    ) -> AbstractContextManager[Recording]:
        """Record every packet of the lab (or one flow's) while the block runs.

        The recording is complete, and can be asked, after the block.
        """
        from lab.observe.recording import record

        return record(self, flow=flow, stacks=stacks)

    @contextmanager
    def probe(self, probe: Probe | Path | str) -> Iterator[OwnProbe]:
        """Run a bcc program of one's own while the block runs; traces show what it saw.

        Args:
            probe: the program, or a Python file with a ``probe`` in it.

        Raises:
            UnsupportedError: this kernel has no such hooks.
            BuildError: its C text does not compile; file and line are in the message.
            InputError: it asks for a place, device, function or tracepoint that does not exist.
        """
        from lab.observe.own import OwnProbe, load_probe

        own = OwnProbe(self, probe if isinstance(probe, Probe) else load_probe(probe))
        self.probes.append(own)
        try:
            yield own
        finally:
            self.probes.remove(own)
            own.close()

    def follow(
        self,
        sender: str,
        receiver: str,
        *,
        protocol: str = "udp",
        port: int = 5000,
        payload: bytes = b"hello",
        listen: bool = True,
        witness: Witness | None = Witness.TRACEPOINTS,
    ) -> Recording:
        """Send one packet and return its trace first, then those of what it caused.

        Args:
            sender: pod, node or ``world``.
            receiver: the same, or an address.
            protocol: ``udp``, ``tcp`` or ``icmp``.
            port: destination port.
            payload: what the packet carries in front of its cookie.
            listen: open a receiver at the destination first.
            witness: tracepoints (any kernel), functions, or both compared; None for what is
                possible here.

        Raises:
            UnsupportedError: functions are to watch, and this kernel lets none be probed.
        """
        from lab.observe.recording import Shot, follow

        shot = Shot(protocol=protocol, port=port, payload=payload, listen=listen, witness=witness)
        return follow(self, sender, receiver, shot)

    def watch(
        self,
        where: str = "",
        *,
        count: int = 0,
        duration_s: float | None = None,
        light: bool = False,
    ) -> Watch:
        """Return the packets of the lab as they come, whoever sends them, for a ``with`` block.

        Args:
            where: which, for example ``pod == client and dropped``.
            count: end after so many; 0 for no end.
            duration_s: end after so long; None for no end.
            light: fewer probes and no call stacks: for many packets.
        """
        from lab.observe.watch import Watch

        return Watch(self, where, count=count, duration_s=duration_s, light=light)

    def close(self) -> None:
        """Drop the connections; a lab of ``lab up`` stays up, one of this process ends."""
        self._let_go_of_all()
        if self._keeper is not None:
            self._keeper.close()

    def stop(self) -> None:
        """Take the lab down and wait until its keeper is gone; idempotent."""
        self._let_go_of_all()
        if self._keeper is not None:
            self._keeper.stop()
            self._keeper = None

    def _let_go_of_all(self) -> None:
        for place in self._places.values():
            place.close()
        self._places.clear()
        self.agent.close()


def open_lab(topology: Topology, *, name: str | None = None, engine: str = "netns") -> Lab:
    """Return a lab that is up, for a notebook: it goes with ``lab.stop()`` or the kernel process.

    Running the cell again replaces the lab: one of the same name that this process started
    before is taken down first.
    """
    # a fixed name, where `with Lab(...)` takes a free one: that is how the cell's last lab is found
    wanted = name or f"{topology.name}-notebook"
    for record in registry.labs():
        if record.name == wanted:
            Lab.attach(wanted).stop()
    return Lab(topology, name=wanted, engine=engine).start()
