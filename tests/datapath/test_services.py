"""ClusterIP services: translated where the pod sends, translated back where it receives."""

from ipaddress import IPv4Address

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.layers.sctp import SCTP, SCTPChunkInit

from lab.datapath.testrun import Verdict
from lab.layouts.attach import Hook
from lab.layouts.core import Flag
from lab.layouts.flows import AffinityKey, BackendKey, RevNatKey, ServiceFlag, SourceRangeKey
from tests.datapath.scene import (
    CLIENT,
    NEIGHBOUR,
    REMOTE,
    VIP,
    WORLD,
    echo,
    frame,
    has_right_checksums,
    tcp,
    udp,
    unreachable,
)

LOOPBACK = "169.254.42.1"
TWO = [(NEIGHBOUR, 8080), (REMOTE, 8080)]


def send(scene, packet):
    return scene.run(Hook.FROM_CONTAINER, packet)


def destination(result):
    packet = Ether(result.packet)[IP]
    return packet.dst, packet.payload.dport


def sctp(port):
    return frame(CLIENT, VIP, SCTP(sport=40000, dport=port) / SCTPChunkInit())


PROTOCOLS = {"TCP": (tcp, 6), "UDP": (udp, 17)}


@pytest.mark.parametrize(("make", "number"), PROTOCOLS.values(), ids=PROTOCOLS.keys())
def test_there_and_back(scene, make, number):
    scene.service(VIP, 80, [(REMOTE, 8080)], 1, protocol=number)
    there = send(scene, make(CLIENT, VIP, 40000, 80))
    assert destination(there) == (REMOTE, 8080)
    assert has_right_checksums(there.packet)
    back = scene.deliver(make(REMOTE, CLIENT, 8080, 40000))
    answer = Ether(back.packet)[IP]
    assert (answer.src, answer.payload.sport, answer.dst) == (VIP, 80, CLIENT)
    assert has_right_checksums(back.packet)


REFUSED = {
    "no backend": ([], 80, tcp(CLIENT, VIP), "DROP_NO_SERVICE"),
    "SCTP to another port would need a new CRC": (
        [(REMOTE, 8080)],
        80,
        sctp(80),
        "DROP_CSUM_L4",
    ),
}


@pytest.mark.parametrize(
    ("backends", "port", "packet", "reason"), REFUSED.values(), ids=REFUSED.keys()
)
def test_refused(scene, backends, port, packet, reason):
    scene.service(VIP, port, backends, 1, protocol=Ether(packet)[IP].proto)
    assert send(scene, packet).drop_reason == reason


UNTOUCHED = {
    "a ping: services are for ports": echo(CLIENT, VIP),
    "another port": tcp(CLIENT, VIP, dport=81),
    "another protocol": udp(CLIENT, VIP, dport=80),
}


@pytest.mark.parametrize("packet", UNTOUCHED.values(), ids=UNTOUCHED.keys())
def test_what_is_not_the_services_is_left_alone(scene, packet):
    scene.service(VIP, 80, [(REMOTE, 8080)], 1)
    result = send(scene, packet)
    assert (result.verdict, Ether(result.packet)[IP].dst) == (Verdict.PASS, VIP)


def test_the_row_of_any_address_is_for_no_packet(scene):
    scene.service("0.0.0.0", 30080, [(REMOTE, 8080)], 1)
    result = send(scene, tcp(CLIENT, "0.0.0.0", dport=30080))
    assert (result.verdict, Ether(result.packet)[IP].dst) == (Verdict.PASS, "0.0.0.0")


def test_sctp_to_the_same_port_is_translated(scene):
    scene.service(VIP, 80, [(REMOTE, 80)], 1, protocol=132)
    assert Ether(send(scene, sctp(80)).packet)[IP].dst == REMOTE


def test_udp_without_checksum_gets_none(scene):
    scene.service(VIP, 53, [(REMOTE, 5353)], 1, protocol=17)
    packet = frame(CLIENT, VIP, UDP(sport=40000, dport=53, chksum=0) / b"x")
    assert Ether(send(scene, packet).packet)[UDP].chksum == 0


def test_flows_spread_over_backends_and_each_keeps_its_own(scene):
    scene.service(VIP, 80, TWO, 1)
    first = {port: destination(send(scene, tcp(CLIENT, VIP, port))) for port in range(2000, 2040)}
    again = {port: destination(send(scene, tcp(CLIENT, VIP, port, flags="A"))) for port in first}
    assert set(first.values()) == set(TWO)
    assert again == first


def test_a_changed_service_leaves_running_flows_alone(scene):
    scene.service(VIP, 80, [(REMOTE, 8080)], 1)
    send(scene, tcp(CLIENT, VIP, 2000))
    scene.service(VIP, 80, [(NEIGHBOUR, 8080)], 1)
    assert destination(send(scene, tcp(CLIENT, VIP, 2000, flags="A"))) == (REMOTE, 8080)
    assert destination(send(scene, tcp(CLIENT, VIP, 2001))) == (NEIGHBOUR, 8080)


def test_a_terminating_backend_keeps_its_flows(scene):
    scene.service(VIP, 80, [(REMOTE, 8080)], 1)
    send(scene, tcp(CLIENT, VIP, 2000))
    scene.service(VIP, 80, [], 1)
    assert destination(send(scene, tcp(CLIENT, VIP, 2000, flags="A"))) == (REMOTE, 8080)
    assert send(scene, tcp(CLIENT, VIP, 2001)).drop_reason == "DROP_NO_SERVICE"


def test_a_removed_backends_flows_get_another(scene):
    scene.service(VIP, 80, [(REMOTE, 8080)], 1)
    send(scene, tcp(CLIENT, VIP, 2000))
    scene.service(VIP, 80, [(NEIGHBOUR, 8080)], 1)
    scene.map("cilium_lb4_backends").delete(BackendKey(id=scene.backend_id(REMOTE, 8080)))
    assert destination(send(scene, tcp(CLIENT, VIP, 2000, flags="A"))) == (NEIGHBOUR, 8080)


def test_an_address_taken_over_by_another_service_forgets_the_old_backend(scene):
    scene.service(VIP, 80, [(REMOTE, 8080)], 1)
    send(scene, tcp(CLIENT, VIP, 2000))
    scene.service(VIP, 80, [(NEIGHBOUR, 8080)], 2)
    assert destination(send(scene, tcp(CLIENT, VIP, 2000, flags="A"))) == (NEIGHBOUR, 8080)


def test_a_new_flow_on_a_closed_ones_port_may_get_another_backend(scene):
    scene.service(VIP, 80, [(REMOTE, 8080)], 1)
    send(scene, tcp(CLIENT, VIP, 2000))
    send(scene, tcp(CLIENT, VIP, 2000, flags="FA"))
    scene.service(VIP, 80, [(NEIGHBOUR, 8080)], 1)
    assert destination(send(scene, tcp(CLIENT, VIP, 2000))) == (NEIGHBOUR, 8080)


def test_affinity_keeps_a_client_on_one_backend_until_it_expires(scene):
    scene.service(VIP, 80, TWO, 1, flags=ServiceFlag.AFFINITY, affinity_s=600)
    seen = {destination(send(scene, tcp(CLIENT, VIP, port))) for port in range(2000, 2020)}
    assert len(seen) == 1
    memory = scene.map("cilium_lb4_affinity")
    [(key, value)] = memory.items()
    assert (key.client, value.last_used > 0) == (IPv4Address(CLIENT), True)
    scene.service(VIP, 80, TWO, 1, flags=ServiceFlag.AFFINITY, affinity_s=0)
    seen = {destination(send(scene, tcp(CLIENT, VIP, port))) for port in range(3000, 3040)}
    assert len(seen) == 2


def test_affinity_to_a_backend_that_left_is_forgotten(scene):
    options = {"flags": ServiceFlag.AFFINITY, "affinity_s": 600}
    scene.service(VIP, 80, [(REMOTE, 8080)], 1, **options)
    send(scene, tcp(CLIENT, VIP, 2000))
    scene.map("cilium_lb_affinity_match").map.clear()
    scene.service(VIP, 80, [(NEIGHBOUR, 8080)], 1, **options)
    assert destination(send(scene, tcp(CLIENT, VIP, 2001))) == (NEIGHBOUR, 8080)
    assert isinstance(scene.map("cilium_lb4_affinity").items()[0][0], AffinityKey)


RANGES = {
    "in the range: allowed": ("10.0.1.0/24", 0, None),
    "outside: refused": ("192.0.2.0/24", 0, "DROP_NOT_IN_SRC_RANGE"),
    "in a range of the unwanted: refused": (
        "10.0.1.0/24",
        ServiceFlag.QUARANTINED,
        "DROP_NOT_IN_SRC_RANGE",
    ),
    "not among the unwanted: allowed": ("192.0.2.0/24", ServiceFlag.QUARANTINED, None),
}


@pytest.mark.parametrize(("network", "deny", "reason"), RANGES.values(), ids=RANGES.keys())
def test_source_ranges(scene, network, deny, reason):
    scene.map("cilium_lb4_source_range").map.clear()
    scene.service(VIP, 80, [(REMOTE, 8080)], 1, flags=ServiceFlag.SOURCE_RANGE | deny)
    address, length = network.split("/")
    key = SourceRangeKey(prefixlen=32 + int(length), rev_nat_id=1, addr=IPv4Address(address))
    scene.map("cilium_lb4_source_range").update(key, Flag())
    assert send(scene, tcp(CLIENT, VIP)).drop_reason == reason


def test_pods_see_the_internal_scope_of_a_service_with_two(scene):
    two = ServiceFlag.TWO_SCOPES
    scene.service(VIP, 80, [(NEIGHBOUR, 8080)], 1, flags=two, scope=0)
    scene.service(VIP, 80, [(REMOTE, 8080)], 1, flags=two, scope=1)
    assert destination(send(scene, tcp(CLIENT, VIP))) == (REMOTE, 8080)


def test_a_pod_reaches_itself_as_the_loopback_address(scene):
    scene.service(VIP, 80, [(CLIENT, 8080)], 1)
    there = send(scene, tcp(CLIENT, VIP, 2000))
    request = Ether(there.packet)[IP]
    assert (there.verdict, request.src, request.dst) == (Verdict.REDIRECT, LOOPBACK, CLIENT)
    assert has_right_checksums(there.packet)
    back = send(scene, tcp(CLIENT, LOOPBACK, 8080, 2000, "SA"))
    answer = Ether(back.packet)[IP]
    assert (back.verdict, answer.src, answer.dst) == (Verdict.REDIRECT, VIP, CLIENT)
    assert (answer[TCP].sport, answer[TCP].dport) == (80, 2000)
    assert has_right_checksums(back.packet)


def test_a_pod_reaches_itself_whatever_the_policy_says(scenes):
    scene = scenes(enable_policy=True)
    scene.service(VIP, 80, [(CLIENT, 8080)], 1)
    assert send(scene, tcp(CLIENT, VIP, 2000)).verdict is Verdict.REDIRECT
    assert send(scene, tcp(CLIENT, LOOPBACK, 8080, 2000, "SA")).verdict is Verdict.REDIRECT


def test_the_loopback_address_from_elsewhere_has_no_privilege(scenes):
    scene = scenes(enable_policy=True)
    scene.service(VIP, 80, [(CLIENT, 8080)], 1)
    assert scene.deliver(tcp(LOOPBACK, CLIENT)).drop_reason == "DROP_POLICY"
    send(scene, tcp(CLIENT, VIP, 2000))
    scene.map("cilium_ct4_global").map.clear()
    assert scene.deliver(tcp(LOOPBACK, CLIENT, 2000, 8080)).drop_reason == "DROP_POLICY"


def test_an_error_about_a_service_flow_quotes_the_service(scene):
    scene.service(VIP, 53, [(REMOTE, 5353)], 1, protocol=17)
    sent = send(scene, udp(CLIENT, VIP, 40000, 53)).packet
    error = Ether(scene.deliver(unreachable(REMOTE, CLIENT, sent)).packet)
    quoted = IP(bytes(error[ICMP].payload))
    assert (error[IP].src, quoted.dst, quoted.payload.dport) == (VIP, VIP, 53)
    assert has_right_checksums(bytes(error))


def test_a_routers_error_about_a_service_flow_stays_the_routers(scene):
    scene.service(VIP, 53, [(REMOTE, 5353)], 1, protocol=17)
    sent = send(scene, udp(CLIENT, VIP, 40000, 53)).packet
    error = Ether(scene.deliver(unreachable(WORLD, CLIENT, sent, kind=11, code=0)).packet)
    assert (error[IP].src, IP(bytes(error[ICMP].payload)).dst) == (WORLD, VIP)


def test_a_deleted_services_answers_stay_as_they_are(scene):
    scene.service(VIP, 80, [(REMOTE, 8080)], 1)
    send(scene, tcp(CLIENT, VIP, 2000))
    scene.map("cilium_lb4_reverse_nat").delete(RevNatKey(index=1))
    back = scene.deliver(tcp(REMOTE, CLIENT, 8080, 2000, "SA"))
    assert Ether(back.packet)[IP].src == REMOTE


def test_a_backend_reached_directly_and_by_service_from_one_port(scene):
    scene.service(VIP, 80, [(REMOTE, 8080)], 1)
    send(scene, tcp(CLIENT, REMOTE, 2000, 8080))
    send(scene, tcp(CLIENT, VIP, 2000))
    back = scene.deliver(tcp(REMOTE, CLIENT, 8080, 2000, "SA"))
    assert Ether(back.packet)[IP].src == VIP


def test_services_switched_off_are_not_looked_up(scenes):
    scene = scenes(enable_services=False)
    scene.service(VIP, 80, [(REMOTE, 8080)], 1)
    assert Ether(send(scene, tcp(CLIENT, VIP)).packet)[IP].dst == VIP


WRONG = {
    "TCP": (tcp(CLIENT, VIP), TCP),
    "UDP": (udp(CLIENT, VIP, dport=80), UDP),
}


@pytest.mark.parametrize(("packet", "layer"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_checksum_stays_wrong_through_translation(scene, packet, layer):
    """It is the receiver's to refuse: a datapath that computed it anew would vouch for garbage."""
    scene.service(VIP, 80, [(REMOTE, 8080)], 1)
    scene.service(VIP, 80, [(REMOTE, 8080)], 2, protocol=17)
    wrong = Ether(packet)
    wrong[layer].chksum ^= 0x1111
    result = scene.run(Hook.FROM_CONTAINER, bytes(wrong))
    assert Ether(result.packet)[IP].dst == REMOTE
    assert not has_right_checksums(result.packet)
