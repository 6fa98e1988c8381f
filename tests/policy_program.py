"""The real policy program under test: one endpoint's bpf_lxc that takes any pod's part.

Whose entries are in the policy map, that pod it plays; its own address is never looked at by
policy, the others' addresses are looked up in the ipcache as on a node.
"""

import socket
import struct
from ipaddress import IPv4Address, IPv4Network

from lab.datapath.testrun import Datapath
from lab.layouts.attach import Hook
from lab.layouts.core import IpcacheKey, RemoteEndpointInfo
from lab.policy.entries import absent, pack_value
from lab.policy.objects import Direction

OWN, NUMBER = "10.0.9.9", 300
NUMBERS = {"ICMP": 1, "TCP": 6, "UDP": 17, "SCTP": 132}
REASONS = {None: 0, "DROP_POLICY": 133, "DROP_POLICY_DENY": 181}


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def frame(source, destination, protocol, port, source_port):
    """A first packet: SYN, datagram, SCTP INIT, or ICMP of type ``port``."""
    if protocol == "ICMP":
        head = struct.pack("!BBHHH", port, 0, 0, source_port, 1)
        payload = struct.pack("!BBHHH", port, 0, checksum(head), source_port, 1)
    elif protocol == "TCP":
        payload = struct.pack("!HHIIBBHHH", source_port, port, 1000, 0, 5 << 4, 2, 64240, 0, 0)
    elif protocol == "UDP":
        payload = struct.pack("!HHHH", source_port, port, 8, 0)
    else:
        payload = struct.pack("!HHII", source_port, port, 0, 0)
        payload += struct.pack("!BBHIIHHI", 1, 0, 20, 1, 65536, 1, 1, 1)
    addresses = socket.inet_aton(source) + socket.inet_aton(destination)
    length = 20 + len(payload)
    head = struct.pack("!BBHHHBBH", 0x45, 0, length, 1, 0, 64, NUMBERS[protocol], 0) + addresses
    head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
    macs = bytes.fromhex("06000a00010a") + bytes.fromhex("02000a00010a")
    return macs + b"\x08\x00" + head + payload


class PolicyProgram:
    """Loads bpf_lxc once; plays pods one after the other."""

    def __init__(self):
        self.datapath = Datapath(
            enable_policy=True, endpoint_ipv4=IPv4Address(OWN), endpoint_id=NUMBER
        )
        self.datapath.load("bpf_lxc")
        self.policy = self.datapath.map("cilium_policy").map
        self.absent = self.datapath.map("cilium_policy_absent").map
        self.ipcache = self.datapath.map("cilium_ipcache")
        self.last = None
        self.flows = [
            self.datapath.map(name).map for name in ("cilium_ct4_global", "cilium_ct_any4_global")
        ]

    def close(self):
        self.datapath.close()

    def play(self, entries):
        """Fill the policy map with these entries and no others."""
        self.policy.clear()
        for key, deny in entries.items():
            self.policy.update(key.pack(), pack_value(deny, key))
        self.tell_absent(absent(entries))

    def tell_absent(self, what):
        """Say what the policy map has nothing of."""
        self.absent.update(NUMBER.to_bytes(4, "little"), what.pack())

    def know(self, networks):
        """Fill the ipcache: network -> identity."""
        self.ipcache.map.clear()
        for network, identity in networks.items():
            key = IpcacheKey.of(IPv4Network(network))
            self.ipcache.update(key, RemoteEndpointInfo(sec_identity=identity))

    def send(self, direction, other, identity, packet):
        """Run one packet between the played pod and ``other``; return the drop reason."""
        for flows in self.flows:
            flows.clear()  # conntrack must see a new flow
        ends = (OWN, other) if direction is Direction.EGRESS else (other, OWN)
        data = frame(*ends, packet.protocol, packet.port, 40000)
        if direction is Direction.EGRESS:
            result = self.datapath.run(Hook.FROM_CONTAINER, data)
        else:
            result = self.datapath.run(Hook.HANDLE_POLICY, data, cb=(identity,))
        self.last = result
        return REASONS[result.drop_reason]


def ipcache_of(compiled, cluster, node):
    """What the ipcache of ``node`` holds: pods, nodes, networks of policies, the world."""
    networks = {"0.0.0.0/0": 2, **compiled.networks}
    for machine in cluster.machines:
        for address in machine.addresses:
            networks[f"{address}/32"] = 1 if machine.name == node else 6
    for pod in cluster.workloads:
        networks[f"{pod.address}/32"] = compiled.identity_of[pod.title]
    return networks


def identity_in(networks, address):
    """Longest match, found the slow way; the sender's identity as its node would mark it."""
    inside = [n for n in map(IPv4Network, networks) if IPv4Address(address) in n]
    return networks[str(max(inside, key=lambda network: network.prefixlen))]


def verdict(program, compiled, cluster, source, destination, packet):
    """One packet through both pods' programs: (reason, direction)."""
    by_address = {pod.address: pod for pod in cluster.workloads}
    if source == destination:
        return 0, None
    steps = ((Direction.EGRESS, source, destination), (Direction.INGRESS, destination, source))
    for direction, own, other in steps:
        pod = by_address.get(own)
        if pod is None:
            continue
        networks = ipcache_of(compiled, cluster, pod.node)
        program.know(networks)
        program.play(compiled.endpoints[pod.title].entries)
        reason = program.send(direction, other, identity_in(networks, other), packet)
        if reason:
            return reason, direction
    return 0, None
