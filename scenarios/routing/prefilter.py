"""The prefilter turns a source away in XDP, before the kernel has made a packet of its frame."""

from lab import Lab, scenario
from topologies.two_nodes import topology


@scenario(topology, prefilter=True)
def prefilter(lab: Lab) -> None:
    """The world pings a node: allowed, listed by network, listed by address, allowed again."""
    alpha, world = lab.node("alpha"), str(lab.facts.gateway)

    def answered() -> bool:
        return lab.world.ping(alpha, timeout_s=0.3).ok

    lab.check("nothing is listed: the node answers", answered())
    for listed in ("172.30.0.128/25", f"{world}/32"):
        alpha.agent.prefilter(listed)
        lab.check(f"{listed} is listed: silence", not answered())
    lab.check("the other node lists nothing and answers", lab.world.ping(lab.node("beta")).ok)
    lab.check("nodes among each other are not meant", lab.node("beta").ping(alpha).ok)
    alpha.agent.regenerate("alpha")
    lab.check("new programs turn it away too", not answered())
    alpha.agent.prefilter()
    lab.check("the list is empty: the node answers", answered())
