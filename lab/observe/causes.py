"""What drop reasons mean for somebody who wants the packet to arrive: cause and remedy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cause:
    """A cause in one clause, and what to change, as an imperative sentence."""

    what: str
    change: str


# The kernel's own reasons (names of enum skb_drop_reason, which differ little between kernels).
KERNEL = {
    "NO_SOCKET": Cause(
        "no socket listens on that port", "Start the server, or use the port it listens on."
    ),
    "NETFILTER_DROP": Cause(
        "a netfilter rule dropped it", "Look at the rules there: nft list ruleset, iptables -S."
    ),
    "XDP": Cause("an XDP program dropped it", "Look at the program: bpftool net; ip link."),
    "TC_INGRESS": Cause(
        "a classifier program on tc ingress dropped it",
        "Look at the program: tc filter show dev DEVICE ingress; bpftool net.",
    ),
    "TC_EGRESS": Cause(
        "a classifier program on tc egress dropped it",
        "Look at the program: tc filter show dev DEVICE egress; bpftool net.",
    ),
    "XFRM_POLICY": Cause(
        "an IPsec policy forbids it",
        "Look at the policies: ip xfrm policy; ip xfrm policy getdefault; ip -s xfrm state.",
    ),
    "SOCKET_RCVBUFF": Cause(
        "the receiving socket's buffer is full: the application does not read",
        "Let the application read, or raise its SO_RCVBUF.",
    ),
    "SOCKET_FILTER": Cause(
        "a filter on the receiving socket, or a program of its control group, dropped it",
        "Look at both: ss -b; bpftool cgroup tree.",
    ),
    "BPF_CGROUP_EGRESS": Cause(
        "a program of the sender's control group dropped it",
        "Look at the program: bpftool cgroup tree.",
    ),
    "TCP_MINTTL": Cause(
        "its time to live is below what the receiving socket asks for (IP_MINTTL)",
        "Lower the socket's IP_MINTTL, or take hops out of the way.",
    ),
    "TCP_MD5NOTFOUND": Cause(
        "it has no TCP MD5 signature, and the receiving socket asks for one (TCP_MD5SIG)",
        "Give both sockets the same key, or none.",
    ),
    "TCP_MD5UNEXPECTED": Cause(
        "it has a TCP MD5 signature, and the receiving socket has no key for it",
        "Give both sockets the same key, or none.",
    ),
    "TCP_MD5FAILURE": Cause("its TCP MD5 signature is wrong", "Give both sockets the same key."),
    "QDISC_OVERLIMIT": Cause(
        "the device's queue is full", "Look at the queue: tc -s qdisc show dev DEVICE."
    ),
    "NEIGH_QUEUEFULL": Cause(
        "too many packets wait for the answer to an ARP question",
        "Look for the next hop: ip neigh; is the other end's device up?",
    ),
    "VXLAN_VNI_NOT_FOUND": Cause(
        "no tunnel device here has the number (VNI) it carries",
        "Look at the tunnel's device: ip -d link show type vxlan.",
    ),
    "IP_RPFILTER": Cause(
        "reverse path filtering: the source is not reached through this device",
        "Correct the route back to the source, or set rp_filter to 0 or 2.",
    ),
    "IP_LOCAL_SOURCE": Cause(
        "its source address is one of the receiver's own",
        "Remove the duplicate address: ip addr.",
    ),
    "IP_INADDRERRORS": Cause(
        "there is no route to the destination here", "Add the route: ip route."
    ),
    "IP_INNOROUTES": Cause("there is no route for it here", "Add the route: ip route."),
    "IP_OUTNOROUTES": Cause("there is no route to the destination", "Add the route: ip route."),
    "NEIGH_FAILED": Cause(
        "nobody answered the ARP question for the next hop",
        "Look for the next hop: ip neigh; is the other end's device up?",
    ),
    "PKT_TOO_BIG": Cause(
        "it is larger than the next link's MTU and must not be fragmented",
        "Send less, lower the MTU of the sender's route, or raise that link's.",
    ),
    "OTHERHOST": Cause(
        "its destination MAC address is not this device's",
        "Correct the stale neighbour entry of the sender: ip neigh.",
    ),
    "IP_CSUM": Cause("its IP header checksum is wrong", "Look at who changed the header."),
    "UDP_CSUM": Cause(
        "its UDP checksum is wrong",
        "Turn off checksum offload at the sender: ethtool -K DEV tx off.",
    ),
    "TCP_CSUM": Cause(
        "its TCP checksum is wrong",
        "Turn off checksum offload at the sender: ethtool -K DEV tx off.",
    ),
    "DEV_READY": Cause("the device is down", "Set it up: ip link set DEV up."),
    "CPU_BACKLOG": Cause(
        "the processor's backlog queue is full", "Raise net.core.netdev_max_backlog, or send less."
    ),
    "QDISC_DROP": Cause(
        "the device's queue dropped it", "Look at the queue: tc -s qdisc show dev DEVICE."
    ),
    "BRIDGE_INGRESS_STP_STATE": Cause(
        "the bridge does not forward from this port: the bridge or its port is down or blocking",
        "Set the bridge up: ip link set br0 up; bridge link.",
    ),
    # the kernel's own counters of IPsec (/proc/net/xfrm_stat) where it frees without a reason
    "XfrmOutNoStates": Cause(
        "a policy demands that it is encrypted, and there is no state to do it with",
        "Add the state there, and its twin at the receiver: ip xfrm state; ip xfrm policy.",
    ),
    "XfrmInNoStates": Cause(
        "no IPsec state here has the packet's SPI: nobody can decrypt it",
        "Add the sender's state here too, with its SPI and key: ip xfrm state.",
    ),
    "XfrmInStateProtoError": Cause(
        "it cannot be decrypted: the sender's key is another, or it was changed on the way",
        "Compare the keys of both ends' states: ip xfrm state.",
    ),
    "XfrmInStateSeqError": Cause(
        "IPsec takes it for a replay: its sequence number was here before, or is too old",
        "Give both ends new states together: one end began to count anew (ip -s xfrm state).",
    ),
    "IP_NOPROTO": Cause("nothing here takes this protocol", "Use a protocol somebody takes."),
}

# What became of a frame that an XDP program sent on (errno names of the driver's answer).
XDP = {
    "ENXIO": Cause(
        "an XDP program sent it back, and the device's other end does not poll (it has no NAPI)",
        "Turn it on there: ethtool -K DEV gro on, or attach an XDP program there too.",
    ),
    "ENOTSUP": Cause(
        "an XDP program redirected it to a device that cannot take frames from XDP: its other "
        "end does not poll (it has no NAPI)",
        "Turn it on there: ethtool -K DEV gro on, or attach an XDP program there too.",
    ),
    "EINVAL": Cause(
        "an XDP program redirected it to a device that does not exist",
        "Correct the interface number in the program, or the map it looks it up in.",
    ),
}

XDP_NOT_TAKEN = Cause(
    "an XDP program redirected it, and the device did not take the frame: it is longer than the "
    "other end's MTU, or its queue is full",
    "Raise the other end's MTU (ip link set DEVICE mtu ...), or send less.",
)
"""A device that says no more than that it took fewer frames than it was given."""

# The datapath's own reasons (names of enum drop_reason in bpf/lib/drop_reasons.h).
DATAPATH = {
    "POLICY": Cause(
        "no policy entry allows it", "Allow it: add a rule for this peer, port and protocol."
    ),
    "POLICY_DENY": Cause(
        "a policy entry denies it explicitly", "Remove the deny rule: it wins over every allow."
    ),
    "INVALID_SIP": Cause(
        "its source address is not the pod's own (spoofed)", "Send from the pod's own address."
    ),
    "MISSED_TAIL_CALL": Cause(
        "a tail call found its slot empty: part of the datapath is not loaded",
        "Regenerate the endpoint: lab endpoint regenerate.",
    ),
    "EP_NOT_READY": Cause(
        "the receiving endpoint's policy program is not loaded",
        "Regenerate the endpoint: lab endpoint regenerate.",
    ),
    "NO_SERVICE": Cause(
        "the service has no backend", "Give the service a backend, or correct its selector."
    ),
    "IS_CLUSTER_IP": Cause(
        "a ClusterIP is not reached from outside", "Use a NodePort or LoadBalancer service."
    ),
    "NOT_IN_SRC_RANGE": Cause(
        "the service allows other source ranges only", "Add the client to the source ranges."
    ),
    "NO_TUNNEL_ENDPOINT": Cause(
        "no node is known behind which the destination is",
        "Look at the ipcache: lab bpf ipcache list.",
    ),
    "INVALID_IDENTITY": Cause(
        "the tunnel said an identity that may not come from outside",
        "Look for who sends with that VNI.",
    ),
    "FRAG_NEEDED": Cause("it is too large for the way", "Send less, or lower the pod's route MTU."),
    "TTL_EXCEEDED": Cause("its time to live ran out", "Send with a larger TTL; look for a loop."),
    "UNKNOWN_L3": Cause("its protocol is not supported here", "Use IPv4."),
    "CT_UNKNOWN_PROTO": Cause(
        "connection tracking does not know its protocol", "Use TCP, UDP or ICMP."
    ),
    "NO_FIB": Cause("the routing table has no answer for it", "Add the route: ip route."),
    "HOST_UNREACHABLE": Cause("the node cannot be reached", "Look at the node's devices."),
    "UNROUTABLE": Cause("its address cannot be routed", "Correct the destination."),
    "FRAG_NOT_FOUND": Cause(
        "the first fragment of its datagram was not seen", "Send the fragments in order."
    ),
}

# What the sender's own system call said, when no packet left.
ERRNO = {
    "ENETUNREACH": Cause("the sender has no route to the destination", "Add one: ip route."),
    "EHOSTUNREACH": Cause(
        "the sender's next hop cannot be reached", "Look at ip route, ip neigh and the device."
    ),
    "ENETDOWN": Cause("the sender's device is down", "Set it up: ip link set eth0 up."),
    "EPERM": Cause(
        "the sender's own rules forbid it",
        "Look at OUTPUT chains, IPsec policies and programs of the control group (bpftool cgroup "
        "tree) of the sender.",
    ),
    "EMSGSIZE": Cause("it is larger than the sender's MTU allows", "Send less."),
    "EACCES": Cause(
        "the destination is a broadcast address, or a `prohibit` route covers it",
        "Look at ip route.",
    ),
    "EINVAL": Cause("the sender's route forbids it", "Look at ip route for blackhole entries."),
}
