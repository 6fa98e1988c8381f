"""Policy speaks where the packet enters its pod, and names the entry it missed or met.

client ──► server: no entry for the port (POLICY), an entry that denies (POLICY_DENY)
"""

from collections.abc import Iterator
from contextlib import contextmanager

from lab import Lab, scenario
from lab.policy.objects import (
    CiliumPolicy,
    CiliumRule,
    NetworkPolicy,
    NetworkRule,
    Peer,
    Policy,
    Port,
    Selector,
)  # fmt: skip
from lab.scenarios.faults import TCP, Ends, lesson
from lab.trace import Step
from topologies.two_nodes import topology

SERVER, CLIENT = Selector.of(app="server"), Selector.of(app="client")
PORT_80 = NetworkPolicy(
    name="guard",
    pod_selector=SERVER,
    ingress=(NetworkRule((Peer(CLIENT),), (Port("TCP", 80),)),),
)
DENY = CiliumPolicy(
    name="guard", endpoint_selector=SERVER, ingress_deny=(CiliumRule(endpoints=(CLIENT,)),)
)
HERE = {"place": "beta", "hook": "cil_from_overlay", "step": Step.TC_INGRESS}
KEYS = (
    (PORT_80, Ends(**HERE, reason="POLICY", why="port 5000: no entry")),
    (DENY, Ends(**HERE, reason="POLICY_DENY", why="port 5000: denied")),
)


@contextmanager
def in_force(lab: Lab, policy: Policy) -> Iterator[None]:
    """The policy holds while the block runs."""
    lab.apply(policy)
    try:
        yield
    finally:
        lab.delete(policy)


@scenario(topology)
def forbidden(lab: Lab) -> None:
    """Two policies, and none."""
    for policy, key in KEYS:
        lesson(lab, in_force(lab, policy), key, TCP)
