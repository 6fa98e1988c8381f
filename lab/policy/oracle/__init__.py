"""What ought to happen to a packet under policies, read off the specification.

This package shares no code with the compiler: no identities, no entries, no normal form. It asks
of each policy, for each packet, the questions that the documents ask, and is as slow as that is.

Sources: Kubernetes "Network Policies" and the ``networking.k8s.io/v1`` reference; Cilium "Layer 3
Policy", "Layer 4 Policy", "Deny Policies" and the CRD reference.
"""

from lab.policy.oracle.common import Packet
from lab.policy.oracle.verdict import Party, Verdict, expect

__all__ = ["Packet", "Party", "Verdict", "expect"]
