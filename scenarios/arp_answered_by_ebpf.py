"""The pod's ARP request is answered by from-container, with the MAC of the veth's host end."""

from lab import Lab, scenario
from lab.packets import frames
from topologies.single_node import topology


@scenario(topology)
def arp_answered_by_ebpf(lab: Lab) -> None:
    """Ask who has the router's address, and who has one that nobody has."""
    client = lab.pod("client")
    for target in (str(client.node.facts.router), "10.0.1.77"):
        request = frames.arp_request(client.facts.mac, str(client.address), target)
        answers = [frames.arp_answer(frame) for frame in client.inject(request, await_s=2)]
        lab.check(f"the request for {target} is answered", answers and answers[0])
        lab.check(
            f"the answer for {target} names the host end of the pod's veth",
            answers == [(client.facts.lxc_mac, target)],
            detail=str(answers),
        )
    own = frames.arp_request(client.facts.mac, str(client.address), str(client.address))
    lab.check("nobody answers for the pod's own address", not client.inject(own, await_s=0.3))
