"""NodePort, ExternalIP and LoadBalancer on the uplink: SNAT, DSR, Maglev, and what is refused."""

import struct
from ipaddress import IPv4Address

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import Ether

from lab.datapath.events import TraceEvent
from lab.datapath.testrun import Tunnel, Verdict
from lab.kernel.bpfmap import BpfMap, MapSpec, MapType
from lab.kernel.netns import NetworkNamespace
from lab.layouts.attach import Hook
from lab.layouts.core import Flag
from lab.layouts.flows import ServiceFlag, SourceRangeKey
from tests.datapath.scene import (
    CLIENT,
    NEIGHBOUR,
    NODE,
    OTHER_NODE,
    REMOTE,
    ROUTED_ELSEWHERE,
    ROUTER,
    WORLD,
    echo,
    frame,
    has_right_checksums,
    tcp,
    udp,
    unreachable,
)

PASS, DROP, REDIRECT = Verdict.PASS, Verdict.DROP, Verdict.REDIRECT
PORT = 30080
NODEPORT = ServiceFlag.NODEPORT | ServiceFlag.ROUTABLE
GATEWAY_MAC, CLIENT_MAC_OF_FRAMES = "02:00:ac:1e:00:fe", "02:00:0a:00:01:0a"


@pytest.fixture(scope="module")
def node_namespace():
    """A node's routes, for the programs that ask for them: an uplink and a known gateway."""
    made = NetworkNamespace.create("node")
    made.request("link", "add", index=2, ifname="eth0", kind="bridge")
    for index in (1, 2):
        made.request("link", "set", index=index, state="up")
    made.request("addr", "add", index=2, address=NODE, prefixlen=24)
    made.request("route", "add", dst="0.0.0.0/0", gateway="172.30.0.254")
    for address in ("172.30.0.254", OTHER_NODE):
        made.request("neigh", "replace", dst=address, lladdr=GATEWAY_MAC, ifindex=2, state=128)
    made.request("route", "add", dst="10.0.2.0/24", gateway=OTHER_NODE)
    for key in ("ipv4.ip_forward", "ipv4.conf.lo.forwarding"):
        made.set_sysctl(key, "1")
    yield made
    made.close()


@pytest.fixture
def uplink(scenes, node_namespace):
    """Scenes with NodePort, run where the node's routes are."""
    with node_namespace.entered():
        yield lambda **config: scenes(enable_nodeport=True, **config)


def arrive(scene, packet):
    return scene.run(Hook.FROM_NETDEV, packet)


def ends(result):
    packet = Ether(result.packet)[IP]
    return packet.src, packet.dst, packet.payload.dport


def test_a_local_backend_gets_the_clients_packet_through_the_stack(uplink):
    scene = uplink()
    scene.service(NODE, PORT, [(CLIENT, 80)], 1, flags=NODEPORT)
    result = arrive(scene, tcp(WORLD, NODE, 2000, PORT))
    assert (result.verdict, ends(result)) == (PASS, (WORLD, CLIENT, 80))
    assert has_right_checksums(result.packet)


def test_a_local_backends_answer_leaves_from_the_service(uplink):
    scene = uplink()
    scene.service(NODE, PORT, [(CLIENT, 80)], 1, flags=NODEPORT)
    arrive(scene, tcp(WORLD, NODE, 2000, PORT))
    scene.run(Hook.FROM_HOST, tcp(WORLD, CLIENT, 2000, 80), ingress_ifindex=1)
    result = scene.run(Hook.FROM_CONTAINER, tcp(CLIENT, WORLD, 80, 2000, "SA"))
    answer = Ether(result.packet)
    assert (result.verdict, result.mark & 0xF00) == (REDIRECT, 0x300)
    assert (answer[IP].src, answer[TCP].sport, answer.dst) == (NODE, PORT, GATEWAY_MAC)
    assert has_right_checksums(result.packet)


def test_host_routing_gives_a_local_backend_its_packet_directly(uplink):
    scene = uplink(enable_host_routing=True)
    scene.service(NODE, PORT, [(CLIENT, 80)], 1, flags=NODEPORT)
    assert arrive(scene, tcp(WORLD, NODE, 2000, PORT)).verdict is REDIRECT


def test_a_remote_backend_gets_it_from_the_router_address_through_the_tunnel(uplink):
    scene = uplink()
    scene.service(NODE, PORT, [(REMOTE, 80)], 1, flags=NODEPORT)
    there = arrive(scene, tcp(WORLD, NODE, 2000, PORT))
    assert (there.verdict, ends(there)) == (REDIRECT, (ROUTER, REMOTE, 80))
    assert [e.name for e in there.events if isinstance(e, TraceEvent)][-1] == "TO_OVERLAY"
    assert has_right_checksums(there.packet)
    port = Ether(there.packet)[TCP].sport
    back = scene.run(Hook.FROM_OVERLAY, tcp(REMOTE, ROUTER, 80, port, "SA"), tunnel=Tunnel(vni=258))
    answer = Ether(back.packet)
    assert (back.verdict, answer[IP].src, answer[IP].dst) == (REDIRECT, NODE, WORLD)
    assert (answer[TCP].sport, answer[TCP].dport) == (PORT, 2000)
    assert has_right_checksums(back.packet)


def test_without_a_tunnel_it_comes_from_the_nodes_own_address(uplink):
    scene = uplink(enable_tunnel=False)
    scene.service(NODE, PORT, [(REMOTE, 80)], 1, flags=NODEPORT)
    there = arrive(scene, tcp(WORLD, NODE, 2000, PORT))
    assert (there.verdict, ends(there)) == (REDIRECT, (NODE, REMOTE, 80))
    assert Ether(there.packet).dst == GATEWAY_MAC
    port = Ether(there.packet)[TCP].sport
    back = arrive(scene, tcp(REMOTE, NODE, 80, port, "SA"))
    assert (back.verdict, ends(back)) == (REDIRECT, (NODE, WORLD, 2000))


def service(scene, **options):
    options.setdefault("flags", NODEPORT)
    scene.service(NODE, PORT, options.pop("backends", [(CLIENT, 80)]), 1, **options)


REFUSED = {
    "a ClusterIP from outside": ({"flags": 0}, "DROP_IS_CLUSTER_IP"),
    "a service without backends": ({"backends": []}, "DROP_NO_SERVICE"),
    "a client outside the source ranges": (
        {"flags": NODEPORT | ServiceFlag.SOURCE_RANGE},
        "DROP_NOT_IN_SRC_RANGE",
    ),
}


@pytest.mark.parametrize(("options", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(uplink, options, reason):
    scene = uplink()
    scene.map("cilium_lb4_source_range").map.clear()
    service(scene, **options)
    result = arrive(scene, tcp(WORLD, NODE, 2000, PORT))
    assert (result.verdict, result.drop_reason) == (DROP, reason)


def test_a_client_inside_the_source_ranges_is_served(uplink):
    scene = uplink()
    service(scene, flags=NODEPORT | ServiceFlag.SOURCE_RANGE)
    key = SourceRangeKey(prefixlen=32 + 24, rev_nat_id=1, addr=IPv4Address("203.0.113.0"))
    scene.map("cilium_lb4_source_range").update(key, Flag())
    assert arrive(scene, tcp(WORLD, NODE, 2000, PORT)).verdict is PASS


UNTOUCHED = {
    "another port of the node": tcp(WORLD, NODE, dport=22),
    "a ping to the node": echo(WORLD, NODE),
    "a protocol without ports": frame(WORLD, NODE, b"", proto=47),
    "the tunnel's outer packets": udp(OTHER_NODE, NODE, 50000, 8472),
    "an error that quotes nobody's packet": unreachable(WORLD, NODE, udp(NODE, WORLD)),
}


@pytest.mark.parametrize("packet", UNTOUCHED.values(), ids=UNTOUCHED.keys())
def test_what_is_not_for_a_service_is_the_stacks(uplink, packet):
    scene = uplink()
    service(scene)
    result = arrive(scene, packet)
    assert (result.verdict, result.packet) == (PASS, packet)


def test_the_row_of_any_address_is_for_nobody_outside(uplink):
    scene = uplink()
    scene.service("0.0.0.0", PORT, [(CLIENT, 80)], 1, flags=NODEPORT)
    packet = tcp(WORLD, "0.0.0.0", 2000, PORT)
    result = arrive(scene, packet)
    assert (result.verdict, result.packet) == (PASS, packet)


def test_a_service_address_of_its_own_is_served_like_a_nodes(uplink):
    scene = uplink()
    flags = ServiceFlag.LOADBALANCER | ServiceFlag.ROUTABLE
    scene.service("198.51.100.7", 443, [(CLIENT, 80)], 1, flags=flags)
    assert ends(arrive(scene, tcp(WORLD, "198.51.100.7", 2000, 443))) == (WORLD, CLIENT, 80)


def test_outside_clients_see_the_external_scope(uplink):
    scene = uplink()
    flags = NODEPORT | ServiceFlag.TWO_SCOPES
    service(scene, flags=flags, scope=0)
    service(scene, flags=flags, scope=1, backends=[(REMOTE, 80)])
    assert ends(arrive(scene, tcp(WORLD, NODE, 2000, PORT)))[1] == CLIENT


def test_the_nodes_own_backend_answers_from_the_service(uplink):
    scene = uplink()
    service(scene, backends=[(NODE, 8000)])
    assert ends(arrive(scene, tcp(WORLD, NODE, 2000, PORT))) == (WORLD, NODE, 8000)
    back = scene.run(Hook.TO_NETDEV, tcp(NODE, WORLD, 8000, 2000, "SA"))
    answer = Ether(back.packet)
    assert (back.verdict, answer[IP].src, answer[TCP].sport) == (PASS, NODE, PORT)


def test_a_backend_that_is_then_reached_directly_answers_for_itself(uplink):
    scene = uplink()
    service(scene)
    for wanted in (NODE, PORT), (CLIENT, 80):
        arrive(scene, tcp(WORLD, wanted[0], 2000, wanted[1]))
        scene.run(Hook.FROM_HOST, tcp(WORLD, CLIENT, 2000, 80), ingress_ifindex=1)
        result = scene.run(Hook.FROM_CONTAINER, tcp(CLIENT, WORLD, 80, 2000, "SA"))
        answer = Ether(result.packet)
        assert (answer[IP].src, answer[TCP].sport) == wanted


def test_a_clients_port_that_the_node_itself_uses_is_another_there(uplink):
    cidr = {"native_routing_cidr": IPv4Address("10.0.0.0")}
    mask = {"native_routing_cidr_mask": IPv4Address("255.0.0.0")}
    scene = uplink(enable_tunnel=False, enable_masquerade=True, **cidr, **mask)
    service(scene, backends=[(REMOTE, 80)])
    own = scene.run(Hook.TO_NETDEV, tcp(NODE, REMOTE, 40001, 80))
    assert Ether(own.packet)[IP].sport == 40001
    sent = Ether(arrive(scene, tcp(WORLD, NODE, 40001, PORT)).packet)
    assert (sent[IP].src, sent[IP].sport) == (NODE, 40002)


EARLIER = {
    "by another service": lambda scene: arrive(scene, tcp(WORLD, NODE, 2000, PORT)),
    "directly": lambda scene: None,
}


@pytest.mark.parametrize("reach", EARLIER.values(), ids=EARLIER)
def test_a_backend_reached_anew_answers_from_the_service_asked_last(uplink, reach):
    scene = uplink()
    scene.service(NODE, PORT, [(CLIENT, 80)], 1, flags=NODEPORT)
    scene.service(NODE, PORT + 1, [(CLIENT, 80)], 2, flags=NODEPORT)
    reach(scene)
    scene.run(Hook.FROM_HOST, tcp(WORLD, CLIENT, 2000, 80), ingress_ifindex=1)
    arrive(scene, tcp(WORLD, NODE, 2000, PORT + 1))
    scene.run(Hook.FROM_HOST, tcp(WORLD, CLIENT, 2000, 80), ingress_ifindex=1)
    result = scene.run(Hook.FROM_CONTAINER, tcp(CLIENT, WORLD, 80, 2000, "SA"))
    answer = Ether(result.packet)
    assert (answer[IP].src, answer[TCP].sport) == (NODE, PORT + 1)


def test_a_client_the_stack_does_not_know_is_answered_where_it_came_from(uplink):
    scene = uplink()
    service(scene)
    stranger = "172.30.0.77"
    arrive(scene, tcp(stranger, NODE, 2000, PORT))
    scene.run(Hook.FROM_HOST, tcp(stranger, CLIENT, 2000, 80), ingress_ifindex=1)
    result = scene.run(Hook.FROM_CONTAINER, tcp(CLIENT, stranger, 80, 2000, "SA"))
    assert (result.verdict, Ether(result.packet).dst) == (REDIRECT, CLIENT_MAC_OF_FRAMES)
    scene.map("cilium_nodeport_neigh4").map.clear()
    again = scene.run(Hook.FROM_CONTAINER, tcp(CLIENT, stranger, 80, 2000, "A"))
    assert again.verdict is REDIRECT, "the stack resolves it"


def test_a_node_without_a_route_names_it(scenes):
    scene = scenes(enable_nodeport=True, enable_tunnel=False)
    service(scene, backends=[(REMOTE, 80)])
    with_no_routes = NetworkNamespace.create("bare")
    with with_no_routes.entered():
        result = arrive(scene, tcp(WORLD, NODE, 2000, PORT))
    with_no_routes.close()
    assert (result.verdict, result.drop_reason) == (DROP, "DROP_NO_FIB")


def dsr_option(packet):
    """Kind, length, port and address of the option, the last two swapped as Cilium does."""
    kind, length = packet[34], packet[35]
    port, address = struct.unpack("<H4s", packet[36:42])
    return kind, length, port, str(IPv4Address(address[::-1]))


def test_dsr_sends_the_clients_packet_on_with_the_service_in_an_option(uplink):
    scene = uplink(enable_tunnel=False, enable_dsr=True)
    service(scene, backends=[(REMOTE, 80)])
    result = arrive(scene, tcp(WORLD, NODE, 2000, PORT))
    packet = Ether(result.packet)[IP]
    assert (result.verdict, packet.src, packet.dst) == (REDIRECT, WORLD, REMOTE)
    assert (packet.ihl, packet.len) == (7, 48)
    assert dsr_option(result.packet) == (0x9A, 8, PORT, NODE)
    assert has_right_checksums(result.packet)
    later = arrive(scene, tcp(WORLD, NODE, 2000, PORT, "A"))
    assert Ether(later.packet)[IP].ihl == 5, "only the SYN carries the option"


def test_dsr_does_not_send_a_pod_its_own_address(uplink):
    scene = uplink(enable_tunnel=False, enable_dsr=True)
    service(scene, backends=[(REMOTE, 80)])
    sent = arrive(scene, tcp(REMOTE, NODE, 2000, PORT))
    packet = Ether(sent.packet)[IP]
    assert (sent.verdict, packet.src, packet.dst, packet.ihl) == (REDIRECT, NODE, REMOTE, 5)
    back = arrive(scene, tcp(REMOTE, NODE, 80, packet[TCP].sport, "SA"))
    assert (back.verdict, ends(back)) == (REDIRECT, (NODE, REMOTE, 2000))


def test_dsr_backend_node_answers_from_the_service(uplink):
    balancer = uplink(enable_tunnel=False, enable_dsr=True)
    service(balancer, backends=[(REMOTE, 80)])
    request = arrive(balancer, tcp(WORLD, NODE, 2000, PORT)).packet
    assert Ether(request)[IP].dst == REMOTE
    balancer.forget()
    assert balancer.run(Hook.FROM_NETDEV, request).verdict is PASS
    back = balancer.run(Hook.TO_NETDEV, tcp(REMOTE, WORLD, 80, 2000, "SA"))
    answer = Ether(back.packet)
    assert (answer[IP].src, answer[TCP].sport) == (NODE, PORT)
    assert has_right_checksums(back.packet)


def dsr_request(scene, client, packet):
    """A request that another node sent on to our pod, the service's address in its option."""
    service(scene, backends=[(REMOTE, 80)], protocol=6 if TCP in Ether(packet) else 17)
    sent = Ether(arrive(scene, packet).packet)
    scene.forget()
    sent[IP].dst = CLIENT
    for layer in (IP, TCP, UDP):
        if layer in sent:
            del sent[layer].chksum
    learnt = scene.run(Hook.FROM_NETDEV, bytes(sent))
    assert learnt.verdict is PASS
    scene.deliver(bytes(sent), sender=257)
    return sent[IP].src == client


DSR_CLIENTS = {
    "beside it": (NEIGHBOUR, REDIRECT),
    "outside": (WORLD, REDIRECT),
    "its own node, which asked another": (NODE, PASS),
}


@pytest.mark.parametrize(("client", "verdict"), DSR_CLIENTS.values(), ids=DSR_CLIENTS.keys())
def test_dsr_backend_answers_its_client_from_the_service(uplink, client, verdict):
    scene = uplink(enable_tunnel=False, enable_dsr=True)
    assert dsr_request(scene, client, tcp(client, NODE, 2000, PORT))
    back = scene.run(Hook.FROM_CONTAINER, tcp(CLIENT, client, 80, 2000, "SA"))
    answer = Ether(back.packet)
    assert (back.verdict, answer[IP].src, answer[TCP].sport) == (verdict, NODE, PORT)
    assert has_right_checksums(back.packet)


def test_dsr_without_the_noted_address_does_not_answer_from_another(uplink):
    scene = uplink(enable_tunnel=False, enable_dsr=True)
    assert dsr_request(scene, NEIGHBOUR, tcp(NEIGHBOUR, NODE, 2000, PORT))
    scene.map("cilium_snat_v4_external").map.clear()
    back = scene.run(Hook.FROM_CONTAINER, tcp(CLIENT, NEIGHBOUR, 80, 2000, "SA"))
    assert (back.verdict, back.drop_reason) == (DROP, "DROP_NAT_NO_MAPPING")


def quoted(result):
    error = Ether(result.packet)
    inner = IP(bytes(error[ICMP].payload))
    return error[IP].src, inner.dst, inner.payload.dport


def test_a_backends_error_quotes_what_its_client_sent(uplink):
    scene = uplink()
    service(scene, protocol=17)
    request = arrive(scene, udp(WORLD, NODE, 2000, PORT)).packet
    scene.run(Hook.FROM_HOST, request, ingress_ifindex=1)
    result = scene.run(Hook.FROM_CONTAINER, unreachable(CLIENT, WORLD, request))
    assert (result.verdict, quoted(result)) == (REDIRECT, (NODE, NODE, PORT))


def test_a_dsr_backends_error_quotes_what_its_client_sent(uplink):
    scene = uplink(enable_tunnel=False, enable_dsr=True)
    packet = udp(NEIGHBOUR, NODE, 2000, PORT)
    assert dsr_request(scene, NEIGHBOUR, packet)
    received = udp(NEIGHBOUR, CLIENT, 2000, 80)
    result = scene.run(Hook.FROM_CONTAINER, unreachable(CLIENT, NEIGHBOUR, received))
    assert (result.verdict, quoted(result)) == (REDIRECT, (NODE, NODE, PORT))


def from_overlay(scene, packet):
    return scene.run(Hook.FROM_OVERLAY, packet, tunnel=Tunnel(vni=260))


REMOTE_ERRORS = {
    "out of the tunnel": (True, ROUTER, from_overlay),
    "on the uplink": (False, NODE, arrive),
}


@pytest.mark.parametrize(
    ("tunnel", "sender", "take"), REMOTE_ERRORS.values(), ids=REMOTE_ERRORS.keys()
)
def test_a_remote_backends_error_quotes_what_its_client_sent(uplink, tunnel, sender, take):
    scene = uplink(enable_tunnel=tunnel)
    service(scene, backends=[(REMOTE, 80)], protocol=17)
    request = arrive(scene, udp(WORLD, NODE, 2000, PORT)).packet
    assert Ether(request)[IP].src == sender
    result = take(scene, unreachable(REMOTE, sender, request))
    assert (result.verdict, quoted(result)) == (REDIRECT, (NODE, NODE, PORT))
    assert (Ether(result.packet)[IP].dst, has_right_checksums(result.packet)) == (WORLD, True)


def test_an_error_about_nobodys_request_is_not_the_services(uplink):
    scene = uplink(enable_tunnel=False)
    service(scene, backends=[(REMOTE, 80)], protocol=17)
    forged = unreachable(REMOTE, NODE, udp(NODE, REMOTE, 2000, 80))
    result = arrive(scene, forged)
    assert (result.verdict, result.packet) == (PASS, forged)


def test_a_node_port_of_the_router_address_serves_who_comes_through_the_tunnel(uplink):
    scene = uplink()
    scene.service(ROUTER, PORT, [(CLIENT, 80)], 1, flags=NODEPORT)
    there = from_overlay(scene, tcp(ROUTED_ELSEWHERE, ROUTER, 2000, PORT))
    assert (there.verdict, ends(there)) == (REDIRECT, (ROUTED_ELSEWHERE, CLIENT, 80))
    back = scene.run(Hook.FROM_CONTAINER, tcp(CLIENT, ROUTED_ELSEWHERE, 80, 2000, "SA"))
    assert ends(back)[:2] == (ROUTER, ROUTED_ELSEWHERE)
    assert [e.name for e in back.events if isinstance(e, TraceEvent)][-1] == "TO_OVERLAY"


def test_so_it_does_when_the_backend_is_behind_the_tunnel_too(uplink):
    scene = uplink()
    scene.service(ROUTER, PORT, [(REMOTE, 80)], 1, flags=NODEPORT)
    there = from_overlay(scene, tcp(ROUTED_ELSEWHERE, ROUTER, 2000, PORT))
    assert (there.verdict, ends(there)) == (REDIRECT, (ROUTER, REMOTE, 80))
    port = Ether(there.packet)[TCP].sport
    back = from_overlay(scene, tcp(REMOTE, ROUTER, 80, port, "SA"))
    assert (back.verdict, ends(back)) == (REDIRECT, (ROUTER, ROUTED_ELSEWHERE, 2000))
    assert Ether(back.packet)[TCP].sport == PORT
    assert has_right_checksums(back.packet)


def test_another_protocol_for_the_router_address_is_the_stacks(uplink):
    result = from_overlay(uplink(), frame(ROUTED_ELSEWHERE, ROUTER, b"", proto=47))
    assert result.verdict is REDIRECT


def test_dsr_udp_packets_all_carry_the_option(uplink):
    scene = uplink(enable_tunnel=False, enable_dsr=True)
    service(scene, backends=[(REMOTE, 80)], protocol=17)
    for _ in range(2):
        result = arrive(scene, udp(WORLD, NODE, 2000, PORT))
        assert dsr_option(result.packet) == (0x9A, 8, PORT, NODE)


DSR_TOO_BIG = {
    "a packet the option would make too long": (1470, {}, "DROP_FRAG_NEEDED"),
    "one it would make just fit": (1464, {}, None),
    "a header with no room left": (10, {"options": b"\x01" * 36 + bytes(4)}, "DROP_CT_INVALID_HDR"),
}


@pytest.mark.parametrize(("size", "fields", "reason"), DSR_TOO_BIG.values(), ids=DSR_TOO_BIG.keys())
def test_dsr_needs_room(uplink, size, fields, reason):
    scene = uplink(enable_tunnel=False, enable_dsr=True)
    service(scene, backends=[(REMOTE, 80)], protocol=17)
    packet = udp(WORLD, NODE, 2000, PORT, bytes(size), **fields)
    assert arrive(scene, packet).drop_reason == reason


def large(**ip):
    """A datagram of 1498 bytes, which fits the uplink without the option."""
    return udp(WORLD, NODE, 2000, PORT, bytes(1470 - len(ip.get("options", b""))), **ip)


TOLD = {
    "one that may not be fragmented": large(flags="DF"),
    "one that may": large(),
    "the first fragment of one": large(flags="MF"),
    "one with options in its header": large(options=b"\x01" * 8),
    "one with all the options that leave room": large(options=b"\x01" * 32),
    "a large SYN": frame(
        WORLD, NODE, TCP(sport=2000, dport=PORT, flags="S") / bytes(1455), flags="DF"
    ),
}


@pytest.mark.parametrize("packet", TOLD.values(), ids=TOLD.keys())
def test_dsr_tells_the_client_to_send_less(uplink, packet):
    scene = uplink(enable_tunnel=False, enable_dsr=True)
    sent = Ether(packet)
    service(scene, backends=[(REMOTE, 80)], protocol=sent[IP].proto)
    result = arrive(scene, packet)
    error = Ether(result.packet)
    assert (result.verdict, result.mark & 0xF00) == (REDIRECT, 0x300)
    assert (error.src, error.dst) == (sent.dst, sent.src)
    assert (error[IP].src, error[IP].dst) == (NODE, WORLD)
    assert (error[ICMP].type, error[ICMP].code, error[ICMP].nexthopmtu) == (3, 4, 1492)
    assert has_right_checksums(result.packet)
    # the header that it sent, and of the next one what it finds its socket by
    quote, asked = bytes(error[ICMP].payload), packet[14:]
    ports = sent[IP].ihl * 4 + 4
    assert quote[:ports] == asked[:ports]
    assert len(quote) == ports - 4 + (20 if TCP in sent else 8)
    assert error[IP].len == len(result.packet) - 14


def test_dsr_counts_what_it_sends_back(uplink):
    scene = uplink(enable_tunnel=False, enable_dsr=True)
    service(scene, backends=[(REMOTE, 80)], protocol=17)
    counted = [(m.name, m.packets, m.bytes) for m in arrive(scene, large()).metrics]
    assert ("DROP_FRAG_NEEDED", 1, len(large())) in counted


def test_dsr_tells_nobody_of_a_later_fragment(uplink):
    scene = uplink(enable_tunnel=False, enable_dsr=True)
    service(scene, backends=[(REMOTE, 80)], protocol=17)
    arrive(scene, large(flags="MF", id=7))
    later = frame(WORLD, NODE, bytes(1478), flags="MF", frag=185, proto=17, id=7)
    result = arrive(scene, later)
    assert (result.verdict, result.drop_reason) == (DROP, "DROP_FRAG_NEEDED")


@pytest.fixture
def maglev(uplink):
    """A service whose look-up table says: every flow to the second backend, but for one slot."""
    scene = uplink(enable_maglev=True)
    service(scene, backends=[(CLIENT, 80), (REMOTE, 80)])
    table = BpfMap.create("maglev", MapSpec(MapType.ARRAY, 4, 1021 * 4, 1, 0))
    yield scene, table
    scene.map("cilium_lb4_maglev").map.clear()
    table.close()


def test_maglev_looks_the_backend_up(maglev):
    scene, table = maglev
    ids = [scene.backend_id(REMOTE, 80)] * 1021
    table.update(bytes(4), struct.pack("<1021I", *ids))
    scene.map("cilium_lb4_maglev").map.update(struct.pack("!H", 1), struct.pack("<I", table.fd))
    chosen = {ends(arrive(scene, tcp(WORLD, NODE, port, PORT)))[1] for port in range(2000, 2030)}
    assert chosen == {REMOTE}


def test_maglev_without_a_table_falls_back_to_chance(maglev):
    scene, _ = maglev
    chosen = {ends(arrive(scene, tcp(WORLD, NODE, port, PORT)))[1] for port in range(2000, 2040)}
    assert chosen == {CLIENT, REMOTE}


def test_maglev_gives_one_flow_one_backend_on_every_node(maglev):
    scene, table = maglev
    pair = [scene.backend_id(CLIENT, 80), scene.backend_id(REMOTE, 80)]
    table.update(bytes(4), struct.pack("<1021I", *(pair * 511)[:1021]))
    scene.map("cilium_lb4_maglev").map.update(struct.pack("!H", 1), struct.pack("<I", table.fd))
    packets = [tcp(WORLD, NODE, port, PORT) for port in range(2000, 2030)]
    first = [ends(arrive(scene, packet))[1] for packet in packets]
    for name in ("cilium_ct4_global", "cilium_snat_v4_external"):
        scene.map(name).map.clear()
    assert [ends(arrive(scene, packet))[1] for packet in packets] == first
    assert len(set(first)) == 2


CLOSED = {
    "SNAT, on the uplink": ("bpf_host", "tail_nodeport_nat_ipv4"),
    "SNAT, out of the tunnel": ("bpf_overlay", "tail_nodeport_nat_ipv4"),
    "undoing SNAT, on the uplink": ("bpf_host", "tail_nodeport_nat_ingress_ipv4"),
    "undoing SNAT, out of the tunnel": ("bpf_overlay", "tail_nodeport_nat_ingress_ipv4"),
    "undoing the translation, on the uplink": ("bpf_host", "tail_rev_nodeport_lb4"),
    "undoing the translation, out of the tunnel": ("bpf_overlay", "tail_rev_nodeport_lb4"),
    "DSR": ("bpf_host", "tail_nodeport_ipv4_dsr"),
    "masquerade": ("bpf_host", "tail_handle_snat_fwd_ipv4"),
}


@pytest.mark.parametrize(("instance", "program"), CLOSED.values(), ids=CLOSED.keys())
def test_where_nothing_is_translated_these_programs_are_closed(scene, instance, program):
    result = scene.run(program, tcp(CLIENT, REMOTE), instance=instance)
    assert (result.verdict, result.drop_reason) == (DROP, "DROP_NAT_NOT_NEEDED")


def test_an_error_on_the_way_back_finds_the_client_behind_the_translation(uplink):
    scene = uplink(enable_tunnel=False)
    service(scene, backends=[(REMOTE, 80)], protocol=17)
    sent = arrive(scene, udp(WORLD, NODE, 2000, PORT)).packet
    result = arrive(scene, unreachable(REMOTE, NODE, sent))
    error = Ether(result.packet)
    quoted = IP(bytes(error[ICMP].payload))
    assert (error[IP].dst, quoted.src, quoted.payload.sport) == (WORLD, WORLD, 2000)
