"""A service answers on its ports, for its clients, while it has a backend.

client ──► 10.96.0.50: no backend (NO_SERVICE); another port: it leaves the cluster
"""

from contextlib import nullcontext
from dataclasses import replace

from lab import Lab, Service, ServicePort, scenario
from lab.scenarios.faults import TCP, Ends, lesson
from lab.trace import Step
from topologies.two_nodes import topology

SERVICE = Service(
    name="web", ports=(ServicePort(80, target=5000),), backends=("server",), cluster_ip="10.96.0.50"
)
EMPTY = replace(SERVICE, backends=(), selector={"app": "nobody"})
NO_BACKEND = Ends(
    place="alpha", hook="cil_from_container", step=Step.TC_INGRESS, reason="NO_SERVICE",
    why="no backend",
)  # fmt: skip
OTHER_PORT = Ends(
    place="world", hook="ip_routing", step=Step.IP_ROUTING,
    why="does not have TCP port 81: it has TCP 80",
)  # fmt: skip


@scenario(topology)
def service_verdicts(lab: Lab) -> None:
    """One address, three answers."""
    shot, away = replace(TCP, port=80), {"receiver": "10.96.0.50", "restored": False}
    lab.apply(EMPTY)
    lesson(lab, nullcontext(), NO_BACKEND, shot, **away)
    lab.apply(SERVICE)
    lesson(lab, nullcontext(), OTHER_PORT, replace(shot, port=81), **away)
    with lab.pod("server").serve_tcp(5000):
        lab.check("with a backend it answers", lab.pod("client").connect("10.96.0.50", 80).ok)
