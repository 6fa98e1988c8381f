"""A datagram for a port without a reader ends where its socket is looked up, and is answered.

client (alpha) ── tunnel ──► server (beta): step 16, NO_SOCKET, then ICMP port unreachable
"""

from lab import Lab, scenario
from lab.trace import Step
from topologies.two_nodes import topology


@scenario(topology)
def nobody_listens(lab: Lab) -> None:
    """One datagram, followed to where it ends."""
    trace = lab.follow("client", "server", port=5999, listen=False).packets[0]
    drop = trace.drops[0]

    lab.check("the packet reaches the server's pod", drop.namespace == "server")
    lab.check("it is dropped at the look-up of its socket", drop.step is Step.L4_RECEIVE)
    lab.check("the kernel's reason is that there is no socket", drop.drop_reason == "NO_SOCKET")
    lab.check("the kernel answers with an ICMP error", "icmp_send" in {h.hook for h in trace.hops})
    lab.check("no queue is reached", Step.RECEIVE_QUEUE not in trace.steps())
