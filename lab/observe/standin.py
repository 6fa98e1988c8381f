"""Lines from functions' entries, on kernels that let no program into netfilter's hooks.

Records of ``bpf/probes/standin.h`` in. Where such programs are, none of these records is written.
"""

from __future__ import annotations

from dataclasses import replace

from lab.observe.records import Config, Record
from lab.observe.walk import Walk
from lab.observe.xdp import Xdp
from lab.trace import Evidence, Side, Step

LOCAL_OUT = "ip_local_out"
# NF_NETDEV_EGRESS; ingress is 0
_NETDEV_EGRESS = 1


class StandIn(Xdp):
    """What kernel functions tell that netfilter's own programs would have told."""

    def _entered(self, record: Record) -> None:
        match self.names.symbol(record.location):
            case "__ip_local_out":
                walk = self.walk(record, Side.SEND)
                self._probed(record, walk, LOCAL_OUT, "on_local_out", None)
            case "ip_rcv_core":
                walk = self.walk(record, Side.RECEIVE)
                if not walk.config & Config.KNOWN:
                    walk.config = self.configured(record, walk)
                self._storage(record, walk)
                self._probed(record, walk, "ip_rcv", "on_ip_rcv", Step.IP_RCV)
            case "ip_local_deliver":
                self._delivered(record, self.walk(record, Side.RECEIVE))
            case "nf_hook_slow" if record.arg == _NETDEV_EGRESS:
                walk = self.walk(record, Side.SEND)
                self._probed(record, walk, "nf_egress", "on_chain", None)
            case "nf_hook_slow":
                walk = self.walk(record, Side.RECEIVE)
                self._probed(record, walk, "nf_ingress", "on_chain", Step.NETFILTER_INGRESS)

    def _delivered(self, record: Record, walk: Walk) -> None:
        walk.early, walk.policy_used = bool(record.verdict), record.reason
        if (route := self.names.symbol(record.arg)) and walk.taken(Step.IP_RCV):
            self._finished(record, walk, f"a route to {route} was attached since ip_rcv_core")
        if walk.last("ip_local_deliver") is None:  # else IPsec's probe of it told first
            step = Step.IP_LOCAL_DELIVER
            self._probed(record, walk, "ip_local_deliver", "on_local_deliver", step)

    def _finished(self, record: Record, walk: Walk, reason: str) -> None:
        index = walk.last("ip_rcv_finish")
        if index is None:
            self.add(record, walk, "ip_rcv_finish", "on_local_deliver", step=Step.IP_RCV_FINISH)
            index = len(walk.hops) - 1
        walk.hops[index] = replace(
            walk.hops[index],
            evidence=Evidence.PROBE,
            reason=reason,
            object=self.names.object("on_local_deliver"),
        )

    def _probed(self, record: Record, walk: Walk, hook: str, probe: str, step: Step | None) -> None:
        name = self.names.symbol(record.location)
        self.add(
            record, walk, hook, probe, step=step, evidence=Evidence.PROBE,
            reason=f"{name} was entered",
        )  # fmt: skip

    def _chain(self) -> str:
        if self._by_function():
            return "nf_hook_slow runs its chains; verdict by whether it returned with the packet"
        return "entered the hook; verdict by whether its last program saw it too"

    def _by_function(self) -> bool:
        """Whether netfilter's hooks are told by the function that runs their chains."""
        return "on_chain" in self.names.programs
