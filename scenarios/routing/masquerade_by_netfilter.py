"""The same masquerade by netfilter instead of BPF: one rule in the node's POSTROUTING."""

from lab import Lab, scenario
from topologies.two_nodes import topology


@scenario(topology, masquerade="iptables")
def masquerade_by_netfilter(lab: Lab) -> None:
    """What outside sees is the same; who did it differs."""
    world, alpha = lab.world, lab.node("alpha")
    with world.serve_tcp(443) as server:
        answer = lab.pod("client").connect(world, 443, payload=b"hello")
        (peer, _), *_ = server.report()["peers"]
    lab.check("the client is answered from outside", answer.reply == b"hello")
    lab.check("outside sees the node", peer == str(alpha.address))
    rules = alpha.run(["iptables", "-t", "nat", "-vnL", "CILIUM_POST_nat"], check=True).stdout
    (masquerade,) = [line for line in rules.splitlines() if "MASQUERADE" in line]
    lab.check("netfilter's rule has counted it", int(masquerade.split()[0]) > 0)
    pin = "/sys/fs/bpf/tc/globals/cilium_snat_v4_external"
    table = alpha.run(["bpftool", "map", "dump", "pinned", pin], check=True).stdout
    lab.check("the datapath's NAT table is empty", '"key"' not in table)
