"""Where everything stands in a drawing: nodes, pods, devices, underlay. Geometry only, no ink."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from lab.layouts.attach import Role
from lab.model import Topology
from lab.names import lxc_interface
from lab.plan.inventory import BRIDGE, UNDERLAY, WORLD, Inventory, NodeFacts, inventory
from lab.report.topology import hooks, link_words
from lab.trace import Trace

Place = tuple[str, str, str]
"""(node, namespace, device), as in a hop."""

POD_WIDTH, POD_HEIGHT = 214, 122
CHIP_WIDTH, CHIP_HEIGHT = 176, 50
GAP = 24
NODE_MIN_WIDTH = 3 * CHIP_WIDTH + 4 * GAP
_HEADER = 52
# of a row of devices: room for a wire below it, and for two chips one above the other
_WIRE, _BETWEEN = 34, 12
_STACK_HEIGHT = 2 * CHIP_HEIGHT + _BETWEEN
UNDERLAY_HEIGHT = 64


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle with words.

    Attributes:
        kind: ``node pod device stack underlay port world``, for the ink.
        x, y, width, height: of the rectangle, in drawing units; y grows downwards.
        label: its name.
        notes: smaller lines below the name.
        key: identifies a device or a stack for highlighting: ``NODE/NAMESPACE/DEVICE``.
    """

    kind: str
    x: float
    y: float
    width: float
    height: float
    label: str
    notes: tuple[str, ...] = ()
    key: str = ""

    @property
    def centre(self) -> tuple[float, float]:
        """Middle of the rectangle."""
        return (self.x + self.width / 2, self.y + self.height / 2)


@dataclass(frozen=True, slots=True)
class Wire:
    """A line between two points: a veth pair, a link to the underlay."""

    start: tuple[float, float]
    end: tuple[float, float]
    label: str = ""


@dataclass(slots=True)
class Scene:
    """A finished layout.

    Attributes:
        boxes: outer ones before those inside them.
        anchors: where a packet stands that is at a place.
    """

    width: float = 0
    height: float = 0
    boxes: list[Box] = field(default_factory=list)
    wires: list[Wire] = field(default_factory=list)
    anchors: dict[Place, tuple[float, float]] = field(default_factory=dict)
    keys: dict[Place, str] = field(default_factory=dict)

    def put(self, box: Box, *places: Place) -> Box:
        """Add a box; a packet at one of the places stands on its left edge, beside the name."""
        key = "/".join(places[0]) if places else ""
        self.boxes.append(
            Box(box.kind, box.x, box.y, box.width, box.height, box.label, box.notes, key)
        )
        for place in places:
            self.anchors[place] = (box.x - 8, box.centre[1])
            self.keys[place] = key
        return box

    def wire(self, above: Box, below: Box, label: str = "") -> None:
        """Connect the bottom of one box with the top of another."""
        start = (above.centre[0], above.y + above.height)
        self.wires.append(Wire(start, (below.centre[0], below.y), label))

    def at(self, place: Place) -> tuple[float, float]:
        """Return where a packet stands; beside the drawing's corner for an unknown place."""
        return self.anchors.get(self.known(place) or place, (GAP, GAP))

    def known(self, place: Place) -> Place | None:
        """Return the place of the drawing that stands for a place, None if there is none."""
        node, namespace, _ = place
        candidates = (place, (node, namespace, ""), ("", namespace, ""))
        return next((one for one in candidates if one in self.anchors), None)

    def along(self, places: Iterable[Place]) -> list[Place]:
        """Return places with each unknown one replaced by the last known before it.

        A hook that knows no device, a question to the routing table for example, happens where
        the packet is; at the beginning that is the first place known.
        """
        wanted = [self.known(place) for place in places]
        last = next((one for one in wanted if one is not None), ("", "", ""))
        found = []
        for one in wanted:
            last = one or last
            found.append(last)
        return found

    def key(self, place: Place) -> str:
        """Return the key of the box in which `at` puts the packet, empty for none."""
        return self.keys.get(self.known(place) or place, "")


@dataclass(slots=True)
class _Pod:
    name: str
    lxc: str
    notes: tuple[str, ...] = ()
    lxc_notes: tuple[str, ...] = ()


@dataclass(slots=True)
class _Node:
    name: str
    notes: tuple[str, ...] = ()
    pods: dict[str, _Pod] = field(default_factory=dict)
    device_notes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    others: dict[str, None] = field(default_factory=dict)
    tunnel: bool = True


_FIXED = ("lo", "eth0", "cilium_host", "cilium_net", "cilium_vxlan")


def scene(topology: Topology | None = None, trace: Trace | None = None) -> Scene:
    """Lay out a topology, a trace, or a trace over the topology it was recorded in.

    A trace alone shows only the pods and devices it met; with its topology also the others,
    with addresses and identities.
    """
    nodes: dict[str, _Node] = {}
    facts = inventory(topology) if topology else None
    if facts:
        nodes = {node.name: _described(facts, node) for node in facts.nodes}
    places = {hop.place for hop in trace.hops} if trace else set()
    # sorted: a set has another order in every process, and drawings are compared
    for place in sorted(places):
        _met(nodes, place)
    if trace and facts and len(facts.pods) > _ALL_PODS:
        # both ends stay, also where the packet did not get so far
        ends = {trace.packet.sender, trace.packet.receiver}
        goals = {(pod.node, pod.netns) for pod in facts.pods if pod.name in ends}
        _leave_out(nodes, goals | {place[:2] for place in places})
    world = topology is not None or any(WORLD in (node, ns) for node, ns, _ in places)
    return _layout(list(nodes.values()), facts, world=world)


_ALL_PODS = 4
"""A drawing of a trace shows every pod up to so many; beyond, those that the packet met."""


def _leave_out(nodes: dict[str, _Node], met: set[tuple[str, str]]) -> None:
    """Keep the drawing large: drop nodes and pods that the packet did not meet, and say so."""
    for name in [name for name in nodes if not any(node == name for node, _ in met)]:
        del nodes[name]
    for node in nodes.values():
        strangers = [netns for netns in node.pods if (node.name, netns) not in met]
        for netns in strangers:
            del node.pods[netns]
        if strangers:
            several = "s" * (len(strangers) > 1)
            node.notes = (*node.notes, f"{len(strangers)} more pod{several}")


def _described(facts: Inventory, node: NodeFacts) -> _Node:
    topology = facts.topology
    return _Node(
        node.name,
        notes=(str(node.address), f"pods {node.pod_cidr}"),
        pods={
            pod.netns: _Pod(
                pod.name,
                pod.lxc,
                (str(pod.address), f"identity {pod.identity}"),
                hooks(Role.LXC, topology),
            )
            for pod in node.pods
        },
        device_notes={
            "cilium_host": hooks(Role.HOST, topology),
            "cilium_net": hooks(Role.NET, topology),
            "cilium_vxlan": hooks(Role.OVERLAY, topology),
            "eth0": hooks(Role.NATIVE, topology),
        },
        tunnel=topology.options.routing == "vxlan",
    )


def _met(nodes: dict[str, _Node], place: Place) -> None:
    name, namespace, device = place
    if not name or name in (UNDERLAY, WORLD) or namespace in (UNDERLAY, WORLD):
        return
    node = nodes.setdefault(name, _Node(name))
    if namespace not in ("", name):
        # a trace alone: the pod's name is that of its network namespace, NAMESPACE.POD
        pod_name = namespace.replace(".", "/", 1) if "." in namespace else namespace
        space, _, short = pod_name.rpartition("/")
        lxc = lxc_interface(short, space or "default")
        if not any(namespace in (key, pod.name) for key, pod in node.pods.items()):
            node.pods[namespace] = _Pod(namespace, lxc)
    elif device and device not in _FIXED and not device.startswith("lxc"):
        node.others[device] = None


def _layout(nodes: list[_Node], facts: Inventory | None, *, world: bool) -> Scene:
    drawing = Scene()
    x, height = GAP, 0.0
    uplinks: list[tuple[_Node, Box]] = []
    for node in nodes:
        count = max(len(node.pods), 1)
        width = max(NODE_MIN_WIDTH, count * (POD_WIDTH + GAP) + GAP)
        uplink, bottom = _node(drawing, node, x, width)
        uplinks.append((node, uplink))
        x += width + 2 * GAP
        height = max(height, bottom)
    if nodes:
        _underlay(drawing, uplinks, height + 46, x - GAP, facts, world=world)
    else:
        drawing.width, drawing.height = 2 * GAP, 2 * GAP
    return drawing


def _node(drawing: Scene, node: _Node, x: float, width: float) -> tuple[Box, float]:
    """Draw one node with its left edge at x; return its uplink and its lower edge."""
    lxc_y = GAP + _HEADER + POD_HEIGHT + _WIRE
    middle_y = lxc_y + CHIP_HEIGHT + _WIRE
    uplink_y = middle_y + _STACK_HEIGHT + _WIRE
    bottom = uplink_y + CHIP_HEIGHT + 20
    drawing.put(Box("node", x, GAP, width, bottom - GAP, node.name, node.notes))
    centre = x + width / 2
    pods_width = len(node.pods) * (POD_WIDTH + GAP) - GAP
    pod_x = centre - pods_width / 2
    for netns, pod in node.pods.items():
        _pod(drawing, node.name, netns, pod, (pod_x, GAP + _HEADER, lxc_y))
        pod_x += POD_WIDTH + GAP
    _middle(drawing, node, x + GAP, x + width - GAP, middle_y)
    uplink = drawing.put(
        _chip(node, "eth0", centre - CHIP_WIDTH / 2, uplink_y), (node.name, node.name, "eth0")
    )
    for number, device in enumerate(node.others):
        # to the left and to the right of the uplink, in turn
        left = x + GAP if number % 2 == 0 else x + width - GAP - CHIP_WIDTH
        drawing.put(_chip(node, device, left, uplink_y), (node.name, node.name, device))
    return uplink, bottom


def _pod(drawing: Scene, node: str, netns: str, pod: _Pod, at: tuple[float, float, float]) -> None:
    x, y, lxc_y = at
    height = POD_HEIGHT - CHIP_HEIGHT / 2
    drawing.put(Box("pod", x, y, POD_WIDTH, height, pod.name, pod.notes), (node, netns, ""))
    left = x + (POD_WIDTH - CHIP_WIDTH) / 2
    eth0 = drawing.put(
        Box("device", left + 38, y + height - 18, CHIP_WIDTH - 76, 38, "eth0"),
        (node, netns, "eth0"),
    )
    lxc = drawing.put(
        Box("device", left, lxc_y, CHIP_WIDTH, CHIP_HEIGHT, pod.lxc, pod.lxc_notes),
        (node, node, pod.lxc),
    )
    drawing.wire(eth0, lxc)
    # a hop may name the pod as manifests do (NAMESPACE/POD) or as its network namespace is called
    if pod.name != netns:
        for device in ("", "eth0"):
            drawing.anchors[node, pod.name, device] = drawing.anchors[node, netns, device]
            drawing.keys[node, pod.name, device] = drawing.keys[node, netns, device]


def _middle(drawing: Scene, node: _Node, left: float, right: float, y: float) -> None:
    name = node.name
    host = drawing.put(_chip(node, "cilium_host", left, y), (name, name, "cilium_host"))
    net = _chip(node, "cilium_net", left, y + CHIP_HEIGHT + _BETWEEN)
    drawing.wire(host, drawing.put(net, (name, name, "cilium_net")))
    stack_left = left + CHIP_WIDTH + GAP
    stack_width = right - left - 2 * (CHIP_WIDTH + GAP)
    drawing.put(
        Box("stack", stack_left, y, stack_width, _STACK_HEIGHT, "IP stack",
            ("routing, netfilter,", "sockets")),
        (name, name, ""), (name, name, "lo"),
    )  # fmt: skip
    if node.tunnel:
        tunnel = _chip(node, "cilium_vxlan", right - CHIP_WIDTH, y + (CHIP_HEIGHT + _BETWEEN) / 2)
        drawing.put(tunnel, (name, name, "cilium_vxlan"))


def _chip(node: _Node, device: str, x: float, y: float) -> Box:
    notes = node.device_notes.get(device, ())
    return Box("device", x, y, CHIP_WIDTH, CHIP_HEIGHT, device, (" ".join(notes),) * bool(notes))


def _underlay(
    drawing: Scene,
    uplinks: Iterable[tuple[_Node, Box]],
    y: float,
    right: float,
    facts: Inventory | None,
    *,
    world: bool,
) -> None:
    label = f"underlay {facts.underlay}" if facts else "underlay"
    notes = _link_notes(facts)
    box = Box("underlay", GAP, y, right - GAP, UNDERLAY_HEIGHT, label, notes)
    # with and without a node: hooks above the device know only the namespace
    places = [("", UNDERLAY, ""), (UNDERLAY, UNDERLAY, ""), (UNDERLAY, UNDERLAY, BRIDGE)]
    drawing.put(box, *places, ("", UNDERLAY, BRIDGE))
    for node, uplink in uplinks:
        middle = uplink.centre[0]
        port = Box("port", middle - 76, y - 14, 152, 32, f"port {node.name}")
        drawing.put(port, (UNDERLAY, UNDERLAY, node.name), ("", UNDERLAY, node.name),
                    (node.name, UNDERLAY, node.name))  # fmt: skip
        drawing.wire(uplink, port)
    drawing.width, drawing.height = right + GAP, y + UNDERLAY_HEIGHT + GAP
    if world:
        notes = (f"{facts.gateway}", f"{facts.world_client}") if facts else ()
        outside = Box("world", right - 250, y + UNDERLAY_HEIGHT + 20, 250, 66, "world", notes)
        everywhere = [(n, WORLD, d) for n in ("", WORLD) for d in ("", "eth0", "lo")]
        drawing.put(outside, *everywhere)
        drawing.wires.append(
            Wire((outside.centre[0], box.y + box.height), (outside.centre[0], outside.y))
        )
        drawing.height += 86


def _link_notes(facts: Inventory | None) -> tuple[str, ...]:
    if facts is None:
        return ()
    return tuple(f"{link.a} ↔ {link.b}: {link_words(link)}" for link in facts.topology.links)
