"""A ClusterIP is for the cluster: who asks for it from outside is dropped, and told why."""

from lab import Lab, Service, ServicePort, scenario
from topologies.two_nodes import topology

FIRST_DROP, IS_CLUSTER_IP = 130, 174


@scenario(topology)
def cluster_ip_from_outside(lab: Lab) -> None:
    """The world has a route to the service's address, as a careless router would."""
    ports = (ServicePort(80, 8080), ServicePort(80, 8080, "UDP", name="datagrams"))
    lab.apply(Service(name="web", ports=ports, backends=("web",)))
    address = lab.service("web").address
    way = [f"{address}/32", "via", str(lab.node("alpha").address)]
    lab.world.run(["ip", "route", "add", *way], check=True)
    with lab.pod("web").serve_tcp(8080):
        lab.check("a pod is served", lab.pod("client").connect(address, 80, payload=b"?").ok)
        lab.check("outside is not", not lab.world.connect(address, 80, timeout_s=0.3).ok)
        seen = lab.follow("world", address, port=80, listen=False)
    lab.check("nor is its datagram", not seen.packets[0].delivered)
    with lab.node("alpha").map("cilium_metrics") as metrics:
        reasons = {key.reason for key, _ in metrics.items() if key.reason >= FIRST_DROP}
    lab.check("because it is a ClusterIP", reasons == {IS_CLUSTER_IP}, detail=str(reasons))
