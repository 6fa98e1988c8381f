"""Translations found in a trace: which field, from what to what, by which program."""

from dataclasses import replace

from traces import DELIVERED, LXC, OVERLAY, SERVER, ethernet, hop, ipv4, udp, vxlan

from lab.report.rewrites import rewrites
from lab.trace import Step


def packet(destination, port):
    return ethernet("02" * 6, "06" * 6, ipv4("10.0.1.10", destination, udp(40000, port, b"x")))


TO_SERVICE, TO_BACKEND = packet("10.96.0.50", 80), packet("10.0.2.10", 8080)
TRANSLATED = replace(
    DELIVERED,
    hops=(
        hop(1.0, LXC, step=Step.RECEIVE_SKB, before=TO_SERVICE),
        hop(2.0, LXC, step=Step.TC_INGRESS, before=TO_SERVICE, program="cil_from_container"),
        hop(2.5, OVERLAY, hook="to-overlay", program="cil_to_overlay"),
        hop(3.0, OVERLAY, hook="dev_queue", before=TO_BACKEND),
        hop(4.0, OVERLAY, hook="dev_xmit", before=vxlan(TO_BACKEND)),
        hop(5.0, SERVER, step=Step.IP_RCV, before=TO_BACKEND[14:], link_layer="ip"),
    ),
)


def test_address_and_port_of_a_service_are_two_rewrites_by_the_program_between():
    found = [(one.field, one.old, one.new, one.program) for one in rewrites(TRANSLATED)]
    assert found == [
        ("destination", "10.96.0.50", "10.0.2.10", "cil_from_container"),
        ("destination port", "80", "8080", "cil_from_container"),
    ]


def test_the_hops_on_either_side_are_named():
    one = rewrites(TRANSLATED)[0]
    assert (one.last.device, one.first.device) == ("lxcclient", "cilium_vxlan")


def test_a_program_without_bytes_of_its_own_is_only_the_second_suspect():
    assert rewrites(TRANSLATED)[0].programs == ("cil_from_container", "cil_to_overlay")


def test_encapsulation_and_ttl_are_no_translation():
    assert rewrites(DELIVERED) == ()
