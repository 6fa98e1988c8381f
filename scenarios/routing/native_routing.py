"""Native routing: the underlay carries the pods' own packets, with nothing around them."""

from lab import Lab, scenario
from topologies.two_nodes import topology

WALK = ("alpha from-container", "alpha to-netdev", "beta from-netdev", "beta from-host")


@scenario(topology, routing="native")
def native_routing(lab: Lab) -> None:
    """Client on alpha, server on beta, no tunnel."""
    links = lab.node("alpha").run(["ip", "-br", "link"]).stdout
    lab.check("there is no tunnel device", "cilium_vxlan" not in links)
    with lab.pod("server").serve_udp(5000, reply=b"not followed") as server:
        seen = lab.follow("client", "server", listen=False)
        lab.check("the packet is delivered", server.received == 1)
    lab.check("the programs it meets", seen.walk == WALK, detail=str(seen.walk))
    outer = [hop.length for hop in seen.packets[0].at("beta", device="eth0") if hop.length]
    inner = [hop.length for hop in seen.packets[0].at("alpha", device="lxcclient") if hop.length]
    lab.check("it is as long on the underlay as in the pod", set(outer) == set(inner),
              detail=f"{inner} and {outer} bytes")  # fmt: skip
