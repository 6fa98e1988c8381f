"""One node with a client and a server: the shortest walk through the datapath.

client ── alpha ── server
"""

from lab import Node, Pod, Topology

topology = Topology(
    name="single-node",
    nodes=(Node("alpha"),),
    pods=(
        Pod("client", node="alpha", labels={"app": "client"}),
        Pod("server", node="alpha", labels={"app": "server"}),
    ),
)
