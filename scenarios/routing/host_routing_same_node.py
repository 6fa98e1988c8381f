"""With BPF host routing a neighbour's packet goes straight into the pod, past its cable's end."""

from lab import Lab, scenario
from topologies.two_nodes import topology


@scenario(topology, host_routing="bpf")
def host_routing_same_node(lab: Lab) -> None:
    """client and web, both on alpha; what the node's end of web's cable has sent tells the way."""
    client, web = lab.pod("client"), lab.pod("web")

    def passed() -> int:
        path = f"/sys/class/net/{web.facts.lxc}/statistics/tx_packets"
        return int(lab.node("alpha").run(["cat", path], check=True).stdout)

    lab.check("web is reached", client.ping(web).ok)
    before = passed()
    lab.check("twenty times", client.ping(web, count=20).ok)
    lab.check("past the cable: the node's end has sent nothing", passed() == before,
              detail=f"{passed() - before} packets")  # fmt: skip
    with web.serve_udp(5000, reply=b"not followed") as server:
        seen = lab.follow("client", "web", listen=False)
        lab.check("a datagram gets there", server.received == 1)
    lab.check("by one program's hook", seen.walk == ("alpha from-container",),
              detail=str(seen.walk))  # fmt: skip
