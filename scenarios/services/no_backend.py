"""A service without backends drops what is sent to it, and says why."""

from lab import Lab, Service, scenario
from topologies.single_node import topology


@scenario(topology)
def no_backend(lab: Lab) -> None:
    """First with a backend, then without."""
    lab.apply(Service(name="web", ports=(80,), backends=("server",)))
    address = lab.service("web").address
    client = lab.pod("client")
    with lab.pod("server").serve_tcp(80):
        lab.check("with a backend it answers", client.connect(address, 80, payload=b"?").ok)
        lab.apply(Service(name="web", ports=(80,), backends=()))
        seen = lab.follow("client", address, protocol="tcp", port=80, listen=False)
    # The kernel may end a late packet of the first connection meanwhile; that is no verdict.
    drops = [hop for hop in seen.drops if hop.program]
    lab.check("without one it is dropped", drops)
    lab.check("where it was sent", {hop.device for hop in drops} == {client.facts.lxc})
    reasons = {hop.drop_reason for hop in drops}
    lab.check("because there is no backend", reasons == {"NO_SERVICE"}, detail=str(reasons))
