"""An ICMP error about a flow belongs to the flow, and passes a policy that lets nothing in."""

from lab import Lab, scenario
from lab.policy.objects import NetworkPolicy, Selector
from topologies.two_nodes import topology


@scenario(topology)
def icmp_error_is_related(lab: Lab) -> None:
    """A datagram to a port that nobody listens on; and an echo request nobody asked for."""
    client, server = lab.pod("client"), lab.pod("server")
    lab.apply(NetworkPolicy(name="closed", pod_selector=Selector.of(app="client")))
    refused = client.send_udp(server, 9, timeout_s=1)
    lab.check("the client hears that the port is closed", refused.error == "ECONNREFUSED",
              detail=refused.error)  # fmt: skip
    lab.check("though ICMP of nobody's asking is dropped",
              not server.ping(client, timeout_s=0.3).ok)  # fmt: skip
