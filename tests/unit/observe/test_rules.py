"""Rules by handle from nft's own text, and what asks the kernel to trace them."""

import pytest

from lab.observe.rules import Base, parse_ruleset, tracing_rules

TEXT = """\
table inet t { # handle 1 progname nft
	flags owner

	set s { # handle 9
		type ipv4_addr
	}

	chain sub { # handle 1
		udp dport 7 counter packets 3 bytes 90 drop comment "{ not a chain" # handle 3
	}

	chain c { # handle 2
		type filter hook input priority filter - 1; policy drop;
		ct state new counter packets 2 bytes 58 # handle 4
		jump sub # handle 5
	}
}
table netdev n { # handle 2
	chain i { # handle 1
		type filter hook ingress devices = { "eth0", "lo" } priority filter; policy accept;
	}
	chain one { # handle 2
		type filter hook ingress device "eth1" priority 5; policy accept;
	}
}
"""


def test_chains_are_known_with_hook_priority_and_policy():
    assert parse_ruleset(TEXT).bases == {
        ("inet", "t", "c"): Base("input", "filter - 1", "drop"),
        ("netdev", "n", "i"): Base("ingress", "filter", "accept", ("eth0", "lo")),
        ("netdev", "n", "one"): Base("ingress", "5", "accept", ("eth1",)),
    }


def test_rules_are_known_by_handle_without_their_counts():
    assert parse_ruleset(TEXT).rules == {
        (("inet", "t", "sub"), 3): 'udp dport 7 counter drop comment "{ not a chain"',
        (("inet", "t", "c"), 4): "ct state new counter",
        (("inet", "t", "c"), 5): "jump sub",
    }


def test_rulesets_of_two_moments_are_put_together():
    later = parse_ruleset(
        TEXT.replace("udp dport 7", "udp dport 8").replace("handle 3", "handle 6")
    )
    both = parse_ruleset(TEXT) | later
    assert {number for (chain, number) in both.rules if chain[2] == "sub"} == {3, 6}


ASKED = {
    "one flow by its port": (5000, 17, ("th sport 5000", "th dport 5000", "@th,400,16 5000")),
    "one protocol, and the tunnel it may be in": (0, 6, ("{ 1, 6 }", "udp dport 8472")),
    "everything": (0, 0, ("!= 255",)),
}


@pytest.mark.parametrize(("port", "protocol", "words"), ASKED.values(), ids=ASKED.keys())
def test_only_what_may_be_the_packet_is_traced(port, protocol, words):
    text = tracing_rules(port, protocol, ("eth0",))
    assert all(word in text for word in words)
    assert text.count("flags owner") == 2
    assert 'device "eth0"' in text
