"""An ICMP error about a masqueraded packet quotes the node, and reaches the pod quoting the pod."""

from lab import Lab, scenario
from topologies.two_nodes import topology


@scenario(topology)
def icmp_error_through_nat(lab: Lab) -> None:
    """Nobody listens outside: the error finds the socket only if its quote is translated back."""
    client, world = lab.pod("client"), lab.world
    refused = client.send_udp(world, 9, timeout_s=1)
    lab.check("the pod hears that the port is closed", refused.error == "ECONNREFUSED",
              detail=refused.error)  # fmt: skip
    with lab.node("alpha").map("cilium_snat_v4_external") as translations:
        flows = [key for key, _ in translations.items() if 9 in (key.sport, key.dport)]
    sources = {str(flow.saddr) for flow in flows}
    lab.check("the flow is translated in both directions", len(flows) == 2, detail=str(flows))
    ends = {str(client.address), str(world.address)}
    lab.check("the error was about a port of the node", sources == ends, detail=str(sources))
