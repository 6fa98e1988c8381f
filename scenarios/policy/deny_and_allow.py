"""A policy that selects a pod closes it; what the policy names comes in, and nothing else."""

from lab import Lab, scenario
from lab.policy.objects import NetworkPolicy, NetworkRule, Peer, Port, Selector
from topologies.two_nodes import topology

SERVER, CLIENT = Selector.of(app="server"), Selector.of(app="client")


@scenario(topology)
def deny_and_allow(lab: Lab) -> None:
    """Nothing in force, then everything closed, then one client on one port."""
    server = lab.pod("server")

    def reaches(name: str, port: int = 80) -> bool:
        return lab.pod(name).connect(server, port, payload=b"?", timeout_s=0.3).ok

    with server.serve_tcp(80), server.serve_tcp(81):
        lab.check("no policy: everybody reaches the server", reaches("client") and reaches("other"))
        lab.apply(NetworkPolicy(name="guard", pod_selector=SERVER))
        lab.check("selected and nothing allowed: nobody does",
                  not reaches("client") and not reaches("other"))  # fmt: skip
        seen = lab.follow("client", "server", port=80)
        lab.check("dropped where it arrives, by policy", bool(seen.drops) and
                  seen.drops[0].node == "beta" and seen.drops[0].drop_reason == "POLICY",
                  detail=str([(hop.node, hop.drop_reason) for hop in seen.drops]))  # fmt: skip
        rule = NetworkRule((Peer(CLIENT),), (Port("TCP", 80),))
        lab.apply(NetworkPolicy(name="guard", pod_selector=SERVER, ingress=(rule,)))
        lab.check("the client is let in on port 80", reaches("client"))
        lab.check("not on port 81", not reaches("client", 81))
        lab.check("and nobody else", not reaches("other"))
        lab.delete("networkpolicy/default/guard")
        lab.check("without the policy everybody again", reaches("other", 81))
