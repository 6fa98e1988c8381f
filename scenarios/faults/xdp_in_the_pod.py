"""An XDP program judges the packet at step 2, before all others, and can end it in four ways.

client ──► server/eth0: dropped, aborted, sent back, sent aside; on a veth the last two need another
end that polls (NAPI), which it has not: nothing comes of them
"""

from lab import Lab, scenario
from lab.scenarios.faults import Ends, Switch, attempt, lesson
from lab.trace import Step
from topologies.two_nodes import topology

STEP_2 = {"place": "server", "hook": "xdp", "step": Step.XDP_DRIVER}
KEYS = {
    "drop": Ends(**STEP_2, why="XDP program dropped it"),
    "abort": Ends(**STEP_2, why="XDP program dropped it"),
}
LOST = ("back", "aside")


@scenario(topology)
def xdp_in_the_pod(lab: Lab) -> None:
    """One program after the other."""
    for verdict in (*KEYS, *LOST):
        fault = Switch(
            "server",
            on=(f"ip link set dev eth0 xdpdrv obj {{verdicts}} sec xdp/{verdict}",),
            off=("ip link set dev eth0 xdpdrv off",),
        )
        if verdict in KEYS:
            lesson(lab, fault, KEYS[verdict])
            continue
        trace = attempt(lab, fault).packets[0]
        lab.check(f"{verdict}: the program gets it", Step.XDP_DRIVER in trace.steps("server"))
        lab.check(f"{verdict}: it goes no further", Step.RECEIVE_SKB not in trace.steps("server"))
