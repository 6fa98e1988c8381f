"""The picture of a topology in the terminal: nodes with their pods and devices over an underlay."""

from __future__ import annotations

from itertools import zip_longest

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from lab.layouts.attach import ATTACH_POINTS, Role
from lab.model import Link, Topology
from lab.names import VXLAN_PORT
from lab.plan.inventory import Inventory, NodeFacts, PodFacts, inventory

WIDTH = 100
_GAP = "  "
_MIN_BOX = 46


def picture(topology: Topology, *, width: int = WIDTH) -> Text:
    """Return the drawing: one box per node, two abreast where they fit, the underlay below.

    Addresses, identities and endpoint ids are those that the running lab will have.

    Args:
        topology: any valid one; nothing needs to be up.
        width: columns to use; below 50 the boxes are cut.
    """
    facts = inventory(topology)
    abreast = 2 if len(facts.nodes) > 1 and width >= 2 * _MIN_BOX + len(_GAP) else 1
    box_width = min((width - (abreast - 1) * len(_GAP)) // abreast, 60)
    boxes = [_box(facts, node, box_width) for node in facts.nodes]
    rows = [Text(_headline(topology), style="bold")]
    for first in range(0, len(boxes), abreast):
        rows += _abreast(boxes[first : first + abreast], box_width)
    rows += _underlay(facts, box_width * abreast + (abreast - 1) * len(_GAP))
    return Text("\n").join(rows)


def picture_text(topology: Topology, *, width: int = WIDTH) -> str:
    """Return the drawing as plain text."""
    return picture(topology, width=width).plain


def print_topology(topology: Topology, console: Console | None = None) -> None:
    """Print the drawing, at most 100 columns wide and no wider than a terminal."""
    out = console or Console(highlight=False)
    width = min(out.width, WIDTH) if out.is_terminal else WIDTH
    out.print(picture(topology, width=width), soft_wrap=True)


def hooks(role: Role, topology: Topology) -> tuple[str, ...]:
    """Return the names of the hooks whose programs sit on devices of a role in this topology."""
    if not topology.options.datapath:
        return ()
    wanted = topology.options.endpoint_routes
    return tuple(
        point.hook.value
        for point in ATTACH_POINTS
        if point.role is role and (wanted or not point.optional)
    )


def link_words(link: Link) -> str:
    """Return what a link does to packets: ``10 Mbit/s, 5 ms, 1 % loss``."""
    parts = [
        f"{link.rate_mbit:g} Mbit/s" if link.rate_mbit is not None else "",
        f"{link.delay_ms:g} ms" if link.delay_ms is not None else "",
        f"{link.loss_pct:g} % loss" if link.loss_pct is not None else "",
    ]
    return ", ".join(part for part in parts if part) or "no limits"


def _headline(topology: Topology) -> str:
    nodes, pods = len(topology.nodes), len(topology.pods)
    return (
        f"{topology.name}: {nodes} node{'s' * (nodes != 1)}, {pods} pod{'s' * (pods != 1)}, "
        f"{topology.options.routing} routing, MTU {topology.options.mtu}"
    )


def _box(facts: Inventory, node: NodeFacts, width: int) -> list[Text]:
    inner = width - 4
    head = f"─ {node.name} {node.address} "
    lines = [Text("╭" + head.ljust(width - 2, "─") + "╮", style="bold")]
    lines += [_row(text, inner) for text in _contents(facts, node)]
    middle = (width - 2) // 2
    # the tee is where eth0 hangs on the underlay below
    lines.append(Text("╰" + "─" * middle + "┬" + "─" * (width - 3 - middle) + "╯", style="bold"))
    return lines


def _row(text: Text, inner: int) -> Text:
    text.truncate(inner, overflow="ellipsis")
    return Text.assemble(("│ ", "bold"), text, " " * (inner - cell_len(text.plain)), (" │", "bold"))


def _contents(facts: Inventory, node: NodeFacts) -> list[Text]:
    topology = facts.topology
    lines = [line for pod in node.pods for line in _pod(pod, topology)]
    lines.append(Text(""))
    lines.append(_device("cilium_host", str(node.router), Role.HOST, topology))
    lines.append(_device("╰ cilium_net", "", Role.NET, topology))
    if topology.options.routing == "vxlan":
        lines.append(_device("cilium_vxlan", "", Role.OVERLAY, topology))
    lines.append(_device("eth0", str(node.address), Role.NATIVE, topology))
    return lines


def _pod(pod: PodFacts, topology: Topology) -> list[Text]:
    labels = " ".join(pod.labels)
    return [
        Text.assemble(
            (pod.name, "bold green"),
            f"  {pod.address}",
            (f"  id {pod.identity}", "magenta"),
            (f"  {labels}", "dim"),
        ),
        Text.assemble(
            ("└ eth0 ═ ", "dim"),
            pod.lxc,
            (f"  ep {pod.endpoint_id}  ", "dim"),
            (" ".join(hooks(Role.LXC, topology)), "cyan"),
        ),
    ]


def _device(name: str, what: str, role: Role, topology: Topology) -> Text:
    words = " ".join(hooks(role, topology))
    return Text.assemble((name, "bold"), f"  {what}  " if what else "  ", (words, "cyan"))


def _abreast(boxes: list[list[Text]], width: int) -> list[Text]:
    height = max(len(box) for box in boxes)
    empty = Text.assemble(("│", "bold"), " " * (width - 2), ("│", "bold"))
    for box in boxes:
        # A shorter node gets empty rows, so that both stand on the underlay.
        box[-1:-1] = [empty] * (height - len(box))
    return [Text(_GAP).join(row) for row in zip_longest(*boxes, fillvalue=Text(""))]


def _underlay(facts: Inventory, width: int) -> list[Text]:
    words = f"══ underlay {facts.underlay}, bridge br0 "
    if facts.topology.options.routing == "vxlan":
        words += f"══ VXLAN, udp {VXLAN_PORT}, VNI = identity of the sender "
    lines = [Text(words.ljust(width, "═"), style="bold blue")]
    for link in facts.topology.links:
        lines.append(Text(f"   {link.a} ↔ {link.b}: {link_words(link)}", style="yellow"))
    lines.append(
        Text(f"   world: gateway {facts.gateway}, external client {facts.world_client}", "dim")
    )
    return lines
