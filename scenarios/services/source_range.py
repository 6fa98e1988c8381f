"""A load balancer's address answers only clients inside its source ranges."""

from dataclasses import replace

from lab import Lab, Service, scenario
from topologies.two_nodes import topology

SERVICE = Service(name="web", kind="LoadBalancer", ports=(80,), backends=("server",))


@scenario(topology)
def source_range(lab: Lab) -> None:
    """The same client outside, then inside the range."""
    client = str(lab.facts.gateway)
    lab.apply(replace(SERVICE, source_ranges=("192.0.2.0/24",)))
    frontends = lab.service("web").frontends
    (address,) = [item.address for item in frontends if item.kind == "LoadBalancer"]
    with lab.pod("server").serve_tcp(80):
        refused = lab.world.connect(address, 80, payload=b"?", timeout_s=0.5)
        lab.check(f"{client} is not in 192.0.2.0/24 and gets no answer", not refused.ok)
        lab.apply(replace(SERVICE, source_ranges=("192.0.2.0/24", f"{client}/32")))
        allowed = lab.world.connect(address, 80, payload=b"?")
        lab.check(f"with {client}/32 in the list it does", allowed.ok)
        inside = lab.pod("web").connect(lab.service("web").address, 80, payload=b"?")
        lab.check("pods use the cluster IP, to which no range applies", inside.ok)
