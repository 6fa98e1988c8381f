"""With session affinity a client keeps its backend; another client may have another."""

from lab import Lab, Service, ServicePort, scenario
from topologies.two_nodes import topology


@scenario(topology)
def session_affinity(lab: Lab) -> None:
    """Thirty connections of one client, before and after affinity."""
    client = lab.pod("client")

    def backends(address: str) -> set[bytes]:
        return {client.connect(address, 80, payload=b"?").reply for _ in range(30)}

    plain = Service(name="web", ports=(ServicePort(80, 8080),), backends=("web", "server"))
    sticky = Service(name="sticky", ports=(ServicePort(80, 8080),), backends=("web", "server"),
                     affinity_s=60)  # fmt: skip
    lab.apply(plain, sticky)
    with (
        lab.pod("web").serve_tcp(8080, reply=b"web"),
        lab.pod("server").serve_tcp(8080, reply=b"server"),
    ):
        spread = backends(lab.service("web").address)
        lab.check("without affinity both answer", spread == {b"web", b"server"})
        kept = backends(lab.service("sticky").address)
        lab.check("with affinity always the same", len(kept) == 1, detail=str(kept))
