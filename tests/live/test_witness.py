"""What a kernel without fentry says when functions are asked for."""

import pytest

from lab import Lab
from lab.errors import UnsupportedError
from lab.kernel import probe
from lab.trace import Witness
from topologies.two_nodes import topology

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(probe.has("fentry"), reason="this kernel has fentry; see tests/vm"),
]


@pytest.fixture(scope="module")
def lab():
    with Lab(topology) as lab:
        yield lab


@pytest.mark.parametrize("witness", [Witness.FUNCTIONS, Witness.BOTH], ids=str)
def test_it_refuses_with_the_steps_concerned_and_where_to_go(lab, witness):
    with pytest.raises(UnsupportedError) as caught:
        lab.follow("client", "server", witness=witness)
    assert "steps 1-19" in caught.value.message
    assert caught.value.hint.startswith("lab vm -- lab trace")
    assert caught.value.exit_code == 3


def test_unasked_the_trace_goes_without_and_says_what_it_lacks(lab):
    trace = lab.follow("client", "server", witness=None).packets[0]
    assert trace.delivered
    assert trace.witnesses is None
    assert any("grade probe" in gap and "lab vm" in gap for gap in trace.missing)
