"""A node as single packets meet it: two pods here, one elsewhere, the node, the world.

client 10.0.1.10 (endpoint 266, identity 256)     neighbour 10.0.1.11 (267, 257)
remote 10.0.2.10 (identity 258, behind node 172.30.0.2)      world 203.0.113.10
"""

from ipaddress import IPv4Address, IPv4Network

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import Ether

from lab.datapath.testrun import Datapath, Tunnel
from lab.layouts.attach import Hook
from lab.layouts.core import (
    EndpointInfo,
    EndpointKey,
    Flag,
    Index,
    IpcacheKey,
    PolicyAbsent,
    PolicyEntry,
    PolicyKey,
    RemoteEndpointInfo,
    TunnelKey,
    TunnelValue,
    Word,
)
from lab.layouts.flows import (
    AffinityMatch,
    Backend,
    BackendKey,
    ReverseNat,
    RevNatKey,
    Service,
    ServiceKey,
)
from lab.policy.entries import EntryKey, absent, unpack_value

CLIENT, NEIGHBOUR, REMOTE, WORLD = "10.0.1.10", "10.0.1.11", "10.0.2.10", "203.0.113.10"
NODE, ROUTER, OTHER_NODE, OTHER_ROUTER = "172.30.0.1", "10.0.1.1", "172.30.0.2", "10.0.2.1"
UNREADY, ROUTED_ELSEWHERE = "10.0.1.12", "10.0.3.10"
CLIENT_MAC, CLIENT_LXC = "02:00:0a:00:01:0a", "06:00:0a:00:01:0a"
NEIGHBOUR_MAC, NEIGHBOUR_LXC = "02:00:0a:00:01:0b", "06:00:0a:00:01:0b"
VIP = "10.96.0.1"
OPEN = 1 << 63
FROM_REMOTE = Tunnel(vni=258)

IDENTITIES = {
    CLIENT: 256,
    NEIGHBOUR: 257,
    UNREADY: 259,
    REMOTE: 258,
    NODE: 1,
    ROUTER: 1,
    OTHER_NODE: 6,
    OTHER_ROUTER: 6,
}
TUNNELED = (REMOTE, OTHER_ROUTER)
STATE = (
    "cilium_ct4_global",
    "cilium_ct_any4_global",
    "cilium_snat_v4_external",
    "cilium_ipv4_frag_datagrams",
    "cilium_lb4_affinity",
    "cilium_nodeport_neigh4",
)


def frame(source, destination, layer, **ip):
    """An Ethernet frame; ``layer`` is a scapy transport layer, ``ip`` further IP fields."""
    return bytes(
        Ether(src=CLIENT_MAC, dst=CLIENT_LXC) / IP(src=source, dst=destination, **ip) / layer
    )


def tcp(source, destination, sport=40000, dport=80, flags="S", **ip):
    return frame(source, destination, TCP(sport=sport, dport=dport, flags=flags), **ip)


def udp(source, destination, sport=40000, dport=53, payload=b"hello", **ip):
    return frame(source, destination, UDP(sport=sport, dport=dport) / payload, **ip)


def echo(source, destination, number=77, answer=False, **ip):
    kind = 0 if answer else 8
    return frame(source, destination, ICMP(type=kind, id=number, seq=1) / b"hello", **ip)


def unreachable(source, destination, quoted, code=3, kind=3):
    """An ICMP error that quotes the header and eight bytes of another frame, as routers do."""
    inner = quoted[14:]
    return frame(source, destination, ICMP(type=kind, code=code) / inner[: (inner[0] & 15) * 4 + 8])


def has_right_checksums(data):
    """Whether a fresh computation by scapy gives the checksums the frame carries."""
    fresh = Ether(data)
    layer = fresh
    while layer:
        if layer.name in ("IP", "TCP", "UDP", "ICMP"):
            del layer.chksum
        layer = layer.payload if layer.name not in ("ICMP",) else None
    return bytes(fresh) == data


class Scene(Datapath):
    """The node of the picture above; ``config`` as in bpf/lib/config.h."""

    def __init__(self, substitutes=None, **config):
        super().__init__(**config)
        for name, bpf_map in (substitutes or {}).items():
            self.substitute(name, bpf_map)
        for name in ("bpf_lxc", "bpf_host", "bpf_overlay", "bpf_xdp"):
            self.load(name)
        self.load(
            "bpf_lxc",
            "neighbour",
            endpoint_id=267,
            endpoint_ipv4=IPv4Address(NEIGHBOUR),
            security_identity=257,
            interface_ifindex=11,
        )
        self.tunnel = config.get("enable_tunnel", True)
        self._fill()

    def _fill(self):
        for address, identity in IDENTITIES.items():
            self.know(address, identity, OTHER_NODE if address in TUNNELED else None)
        self.add_endpoint(CLIENT, 266, 10, CLIENT_MAC, CLIENT_LXC)
        self.add_endpoint(NEIGHBOUR, 267, 11, NEIGHBOUR_MAC, NEIGHBOUR_LXC)
        self.add_endpoint(UNREADY, 268, 12, NEIGHBOUR_MAC, NEIGHBOUR_LXC)
        for address in (NODE, ROUTER):
            key = EndpointKey(ip4=IPv4Address(address))
            self.map("cilium_lxc").update(key, EndpointInfo(flags=1))
        self.map("cilium_tunnel_map").update(
            TunnelKey(ip4=IPv4Address("10.0.3.0")),
            TunnelValue(ip4=IPv4Address("172.30.0.3"), family=1),
        )

    def know(self, address, identity, node=None):
        via = IPv4Address(node) if node and self.tunnel else IPv4Address(0)
        value = RemoteEndpointInfo(sec_identity=identity, tunnel_endpoint=via)
        self.map("cilium_ipcache").update(IpcacheKey.of(IPv4Network(address)), value)

    def add_endpoint(self, address, number, ifindex, mac, lxc_mac):
        value = EndpointInfo(
            ifindex=ifindex, lxc_id=number, mac=mac, node_mac=lxc_mac, sec_id=IDENTITIES[address]
        )
        self.map("cilium_lxc").update(EndpointKey(ip4=IPv4Address(address)), value)

    def allow(self, identity, *, egress, instance="", protocol=0, port=0, deny=False):
        bits = 0 if not protocol else 8 if not port else 24
        key = PolicyKey(sec_label=identity, egress_wild=egress, protocol=protocol, dport=port)
        policy = self.map("cilium_policy", instance)
        policy.update(key, PolicyEntry(flags=int(deny) | bits << 3))

    def selected(self, number, instance=""):
        """Have an endpoint look in its policy map for what is there alone, as the agent does."""
        entries = self.map("cilium_policy", instance).map.items()
        found = absent({EntryKey.unpack(key): unpack_value(value)[0] for key, value in entries})
        self.lacks(number, egress=found.egress & ~OPEN, ingress=found.ingress & ~OPEN)

    def lacks(self, number, *, egress=0, ingress=0):
        """Say what an endpoint's policy has nothing of, in bits of ``cilium_policy_absent``."""
        value = PolicyAbsent(egress=egress, ingress=ingress)
        self.map("cilium_policy_absent").update(Index(index=number), value)

    def service(self, address, port, backends, number, *, protocol=6, **options):
        """Write a service: row 0, a row per backend, reverse NAT; ``backends``: (address, port)."""
        flags = options.get("flags", 0)
        key = {"address": IPv4Address(address), "dport": port, "proto": protocol}
        key["scope"] = options.get("scope", 0)
        value = {"rev_nat_index": number, "flags": flags & 0xFF, "flags2": flags >> 8}
        rows = self.map("cilium_lb4_services_v2")
        for slot, (backend, backend_port) in enumerate(backends, 1):
            identifier = self.backend(backend, backend_port, protocol)
            rows.update(
                ServiceKey(**key, backend_slot=slot), Service(**value, backend_id=identifier)
            )
            match = AffinityMatch(backend_id=identifier, rev_nat_id=number)
            self.map("cilium_lb_affinity_match").update(match, Flag())
        master = Service(**value, count=len(backends), backend_id=options.get("affinity_s", 0))
        rows.update(ServiceKey(**key), master)
        self.map("cilium_lb4_reverse_nat").update(
            RevNatKey(index=number), ReverseNat(address=IPv4Address(address), port=port)
        )

    @staticmethod
    def backend_id(address, port):
        return int(IPv4Address(address)) % 4096 * 65536 + port

    def backend(self, address, port, protocol=6):
        identifier = self.backend_id(address, port)
        value = Backend(address=IPv4Address(address), port=port, proto=protocol)
        self.map("cilium_lb4_backends").update(BackendKey(id=identifier), value)
        return identifier

    def forget(self):
        """No flow, no translation, no fragment, no service is known any more."""
        for name in (*STATE, "cilium_lb4_services_v2", "cilium_lb4_backends"):
            self.map(name).map.clear()

    def aggregate(self, level):
        self.map("cilium_runtime_config").update(Index(index=2), Word(value=level))

    def deliver(self, packet, *, sender=258, tunnel=False, instance="", **context):
        """Run a pod's policy program as whoever delivers to it would."""
        cb = (sender, 0, 0, 0, int(tunnel))
        return self.run(Hook.HANDLE_POLICY, packet, cb=cb, instance=instance, **context)
