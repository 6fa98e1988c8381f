"""Two nodes joined by an underlay; a client on alpha, a server on beta, one more pod on each.

client ─┐                          ┌─ server
        ├─ alpha ═══ VXLAN ═══ beta ┤
web    ─┘                          └─ other
"""

from lab import Node, Pod, Topology

topology = Topology(
    name="two-nodes",
    nodes=(Node("alpha"), Node("beta")),
    pods=(
        Pod("client", node="alpha", labels={"app": "client"}),
        Pod("web", node="alpha", labels={"app": "web"}),
        Pod("server", node="beta", labels={"app": "server"}),
        Pod("other", node="beta", labels={"app": "other"}),
    ),
)
