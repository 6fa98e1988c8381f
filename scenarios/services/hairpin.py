"""A pod that is its own backend gets through to itself: from the loopback address, past policy."""

from lab import Lab, Service, ServicePort, scenario
from lab.policy.objects import NetworkPolicy, Selector
from topologies.single_node import topology


@scenario(topology)
def hairpin(lab: Lab) -> None:
    """The only backend asks for its own service."""
    server = lab.pod("server")
    lab.apply(Service(name="self", ports=(ServicePort(80, 8080),), backends=("server",)))
    address = lab.service("self").address
    with server.serve_tcp(8080) as listener:
        lab.check("it is answered", server.connect(address, 80, payload=b"hi").reply == b"hi")
        peers = {peer for peer, _ in listener.report()["peers"]}
        lab.check("it sees 169.254.42.1 as its client", peers == {"169.254.42.1"})
        lab.apply(NetworkPolicy(name="closed", pod_selector=Selector()))
        lab.check("a policy that lets nobody in does not concern itself",
                  server.connect(address, 80, payload=b"hi").ok)  # fmt: skip
        lab.check("but others", not lab.pod("client").connect(address, 80, timeout_s=0.3).ok)
