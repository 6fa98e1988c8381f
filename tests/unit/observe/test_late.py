"""A packet that came by between rules and their trace says so; others do not."""

from dataclasses import replace

import pytest

from lab.observe.late import with_late_rules
from lab.trace import Evidence, Hop, PacketId, Trace

HOP = Hop(step=None, hook="nf_input", evidence=Evidence.PROGRAM, namespace="server", ns=500)
PACKET = PacketId(protocol="udp", source="10.0.1.10", destination="10.0.2.10")
CASES = {
    "between": (HOP, True),
    "before the rules": (replace(HOP, ns=99), False),
    "once they are traced": (replace(HOP, ns=900), False),
    "elsewhere": (replace(HOP, namespace="client"), False),
    "a step not taken": (replace(HOP, evidence=Evidence.NOT_TAKEN), False),
}


@pytest.mark.parametrize(("hop", "told"), CASES.values(), ids=CASES.keys())
def test_only_who_may_have_met_untold_rules_says_so(hop: Hop, told: bool) -> None:
    (trace,) = with_late_rules((Trace(packet=PACKET, hops=(hop,)),), [("server", 100, 900)])
    assert [words.startswith("netfilter rules of server") for words in trace.missing] == [
        True
    ] * told
