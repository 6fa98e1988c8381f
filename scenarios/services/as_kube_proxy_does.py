"""Without eBPF: netfilter gives the same service, and conntrack remembers the translation."""

from lab import Lab, Service, ServicePort, scenario
from topologies.two_nodes import topology

WEB = Service(name="web", ports=(ServicePort(80, 8080),), backends=("web", "server"))


@scenario(topology, datapath=False, endpoint_routes=True, routing="native")
def as_kube_proxy_does(lab: Lab) -> None:
    """The same service as iptables and as nftables rules."""
    client, alpha = lab.pod("client"), lab.node("alpha")
    with (
        lab.pod("web").serve_tcp(8080, reply=b"web"),
        lab.pod("server").serve_tcp(8080, reply=b"server"),
    ):
        for flavour in ("iptables", "nftables"):
            (service,) = lab.kube_proxy(flavour, WEB)
            got = {client.connect(service.address, 80, payload=b"?").reply for _ in range(16)}
            lab.check(f"{flavour}: both backends answer", got == {b"web", b"server"})
            rules = alpha.run(["nft", "list", "ruleset"], check=True).stdout
            lab.check(f"{flavour}: a backend is in the rules", "10.0.2.10" in rules)
            alpha.run(["nft", "flush", "ruleset"], check=True)
            lost = client.connect(service.address, 80, payload=b"?", timeout_s=0.3)
            lab.check(f"{flavour}: without the rules nobody answers", not lost.ok)
    filters = alpha.run(["tc", "filter", "show", "dev", "lxcclient", "ingress"]).stdout
    lab.check("no program sits at the pod's veth", filters.strip() == "")
