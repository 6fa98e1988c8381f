"""IPsec policies from ip's own text, in the order in which the kernel tries them."""

from ipaddress import IPv4Address

import pytest

from lab.observe.headers import Packet
from lab.observe.policies import parse_policies

TEXT = """\
src 0.0.0.0/0 dst 0.0.0.0/0 
	dir in priority 5 ptype main 
src 10.0.1.0/24 dst 10.0.2.10/32 proto udp dport 5000 
	dir in action block priority 1 ptype main 
	mark 0xabc/0xfff 
src 10.0.0.0/8 dst 10.0.2.10/32 proto tcp 
	dir in priority 3 ptype main 
	tmpl src 0.0.0.0 dst 0.0.0.0
		proto esp reqid 0 mode transport
src 10.0.2.0/24 dst 0.0.0.0/0 
	dir out action block priority 0 ptype main 
"""  # noqa: W291 (as ip prints it)


def packet(protocol, dport, source="10.0.1.10"):
    ends = (IPv4Address(source), IPv4Address("10.0.2.10"))
    return Packet(protocol, *ends, 1, (40000, dport))


# packet and mark -> priority of the policy it meets
MET = {
    "the narrow one by mark": (packet(17, 5000), 0xABC, 1),
    "not without its mark": (packet(17, 5000), 0, 5),
    "not on another port": (packet(17, 5001), 0xABC, 5),
    "the one of its protocol": (packet(6, 80), 0, 3),
    "the general one from elsewhere": (packet(6, 80, "192.0.2.1"), 0, 5),
}


@pytest.mark.parametrize(("seen", "mark", "priority"), MET.values(), ids=MET.keys())
def test_a_packet_meets_the_first_policy_that_takes_it(seen, mark, priority):
    inwards = [one for one in parse_policies(TEXT) if one.direction == "in"]
    assert next(one for one in inwards if one.meets(seen, mark)).priority == priority


def test_policies_are_in_the_order_in_which_they_are_tried():
    assert [one.priority for one in parse_policies(TEXT)] == [0, 1, 3, 5]


def test_a_template_and_an_action_are_told():
    block, template = parse_policies(TEXT)[1:3]
    assert (block.met.verdict, block.met.text) == ("block", "action block priority 1")
    assert template.met.text == "action allow priority 3, wants proto esp"


def test_no_policy_is_no_policy():
    assert parse_policies("") == ()
