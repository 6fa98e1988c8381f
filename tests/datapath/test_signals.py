"""Full tables call the agent."""

from contextlib import closing

import pytest

from lab.kernel.bpfmap import BpfMap, MapSpec, MapType
from lab.kernel.bpfring import PerfReader
from lab.layouts.attach import Hook
from lab.layouts.events import SignalRecord
from tests.datapath.scene import CLIENT, WORLD, Scene, tcp

FULL = {
    "conntrack takes nothing more": ("cilium_ct4_global", 56, Hook.FROM_CONTAINER, {}, [1]),
    "half of the tries for a port failed": (
        "cilium_snat_v4_external",
        40,
        Hook.TO_NETDEV,
        {"enable_masquerade": True},
        [0],
    ),
}


@pytest.mark.parametrize(
    ("name", "size", "hook", "config", "signals"), FULL.values(), ids=FULL.keys()
)
def test_full_tables_call_the_agent(name, size, hook, config, signals):
    full = BpfMap.create("full", MapSpec(MapType.HASH, 14, size, 1, 0))
    full.update(bytes(14), bytes(size))
    with (
        Scene(substitutes={name: full}, **config) as scene,
        closing(PerfReader(scene._maps["cilium_signals"])) as reader,
    ):
        scene.run(hook, tcp(CLIENT, WORLD))
        sent = [SignalRecord.unpack(sample.data[: SignalRecord.size()]) for sample in reader.read()]
    assert [record.signal for record in sent] == signals
