"""A ClusterIP is for the cluster: who asks for it from outside is dropped, and told why."""

from lab import Lab, Service, ServicePort, scenario
from topologies.two_nodes import topology


@scenario(topology)
def cluster_ip_from_outside(lab: Lab) -> None:
    """The world has a route to the service's address, as a careless router would."""
    lab.apply(Service(name="web", ports=(ServicePort(80, 8080),), backends=("web",)))
    address = lab.service("web").address
    way = [f"{address}/32", "via", str(lab.node("alpha").address)]
    lab.world.run(["ip", "route", "add", *way], check=True)
    with lab.pod("web").serve_tcp(8080):
        lab.check("a pod is served", lab.pod("client").connect(address, 80, payload=b"?").ok)
        seen = lab.follow("world", address, protocol="tcp", port=80, listen=False)
    drops = [hop for trace in seen.packets for hop in trace.drops if hop.program]
    lab.check("outside is not", not lab.world.connect(address, 80, timeout_s=0.3).ok)
    lab.check("it is dropped where it enters", {drop.device for drop in drops} == {"eth0"})
    reasons = {drop.drop_reason for drop in drops}
    lab.check("because it is a ClusterIP", reasons == {"IS_CLUSTER_IP"}, detail=str(reasons))
