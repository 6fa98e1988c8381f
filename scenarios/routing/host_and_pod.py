"""A node and its pod reach each other through cilium_host; policy lets a pod's own node in."""

from lab import Lab, scenario
from lab.policy.objects import NetworkPolicy, Selector
from topologies.two_nodes import topology


@scenario(topology)
def host_and_pod(lab: Lab) -> None:
    """Both directions, then under a policy that lets nobody in."""
    client = lab.pod("client")
    there = lab.follow("alpha", "client", port=5000, witness=None)
    lab.check("from the node: from-host delivers", there.walk[:1] == ("alpha from-host",),
              detail=str(there.walk))  # fmt: skip
    lab.check("the pod's answer reaches the node", lab.node("alpha").ping(client).ok)
    back = lab.follow("client", "alpha", port=5000)
    lab.check("from the pod: from-container hands it to the stack",
              back.walk[:1] == ("alpha from-container",), detail=str(back.walk))  # fmt: skip
    lab.apply(NetworkPolicy(name="closed", pod_selector=Selector()))
    own = lab.node("alpha").ping(client)
    lab.check("under a closed policy the own node still reaches it", own.ok)
    lab.check("the other node does not", not lab.node("beta").ping(client, timeout_s=0.3).ok)
