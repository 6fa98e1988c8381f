"""Three nodes: client, server and a third node that is neither source nor destination.

client ── alpha ══╦══ beta ── server
                  ╚══ gamma ── observer
"""

from lab import Node, Pod, Topology

topology = Topology(
    name="three-nodes",
    nodes=(Node("alpha"), Node("beta"), Node("gamma")),
    pods=(
        Pod("client", node="alpha", labels={"app": "client"}),
        Pod("server", node="beta", labels={"app": "server"}),
        Pod("observer", node="gamma", labels={"app": "observer"}),
    ),
)
