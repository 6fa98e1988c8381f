"""A topology as Mermaid text, for places that draw it themselves (Markdown, wikis)."""

from __future__ import annotations

from lab.model import Topology
from lab.plan.inventory import inventory
from lab.report.topology import link_words


def mermaid(topology: Topology) -> str:
    """Return a ``flowchart``: a subgraph per node, its pods, the underlay between the nodes."""
    facts = inventory(topology)
    lines = ["flowchart TB"]
    for node in facts.nodes:
        uplink = f"n{node.number}"
        lines.append(f'  subgraph {uplink}g["{node.name} {node.address}"]')
        lines.append(f'    {uplink}["eth0"]')
        for pod in node.pods:
            key = f"{uplink}p{pod.lxc_index}"
            lines.append(f'    {key}(["{pod.name}<br/>{pod.address}<br/>identity {pod.identity}"])')
            lines.append(f"    {key} --- |{pod.lxc}| {uplink}")
        lines.append("  end")
    lines.append(f'  underlay[["underlay {facts.underlay}"]]')
    for node in facts.nodes:
        lines.append(f"  n{node.number} --- underlay")
    number = {node.name: node.number for node in facts.nodes}
    for link in topology.links:
        lines.append(f'  n{number[link.a]} -. "{link_words(link)}" .- n{number[link.b]}')
    lines.append(f'  underlay --- world["world {facts.world_client}"]')
    return "\n".join(lines) + "\n"
