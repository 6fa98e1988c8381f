"""Which structures each map of a node holds, by the map's pinned name."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lab.layouts import core, flows
from lab.layouts.records import Record

# the longer name first: it begins with the shorter one
_PRIVATE = re.compile(r"(cilium_policy|cilium_calls_custom|cilium_calls)_.*\d\Z")


@dataclass(frozen=True, slots=True)
class MapLayout:
    """Structures of one map, and whether anything writes it yet.

    Attributes:
        name: pinned name, without the suffix of a private map.
        key, value: structures; None where user space has no use for them (rings, scratch space).
        percpu: one value per CPU under a key.
        unused: why it is empty, for a map that exists only because Cilium's node has it.
    """

    name: str
    key: type[Record] | None
    value: type[Record] | None
    percpu: bool = False
    unused: str = ""


_SOCKET_LB = "written by the socket load balancer"
_ENCRYPTION = "written when encryption is on"

MAPS = (
    MapLayout("cilium_lxc", core.EndpointKey, core.EndpointInfo),
    MapLayout("cilium_ipcache", core.IpcacheKey, core.RemoteEndpointInfo),
    MapLayout("cilium_tunnel_map", core.TunnelKey, core.TunnelValue),
    MapLayout("cilium_metrics", core.MetricsKey, core.MetricsValue, percpu=True),
    MapLayout("cilium_policy", core.PolicyKey, core.PolicyEntry),
    MapLayout("cilium_policy_absent", core.Index, core.PolicyAbsent),
    # program arrays take a descriptor and give back a program's id; cilium_events takes descriptors
    # only
    MapLayout("cilium_calls", core.Index, core.Index),
    MapLayout("cilium_calls_custom", core.Index, core.Index),
    MapLayout("cilium_call_policy", core.Index, core.Index),
    MapLayout("cilium_runtime_config", core.Index, core.Word),
    MapLayout("cilium_events", core.Index, core.Index),
    MapLayout("cilium_signals", core.Index, core.Index),
    MapLayout("cilium_mind", None, None),
    MapLayout("cilium_tail_call_buffer4", None, None),
    MapLayout("cilium_ct4_global", flows.Tuple4, flows.CtEntry),
    MapLayout("cilium_ct_any4_global", flows.Tuple4, flows.CtEntry),
    MapLayout("cilium_snat_v4_external", flows.Tuple4, flows.NatEntry),
    MapLayout("cilium_ipv4_frag_datagrams", flows.FragKey, flows.FragPorts),
    MapLayout("cilium_nodeport_neigh4", flows.Address4, flows.Mac),
    MapLayout("cilium_lb4_services_v2", flows.ServiceKey, flows.Service),
    MapLayout("cilium_lb4_backends", flows.BackendKey, flows.Backend),
    MapLayout("cilium_lb4_reverse_nat", flows.RevNatKey, flows.ReverseNat),
    MapLayout("cilium_lb4_affinity", flows.AffinityKey, flows.AffinityValue),
    MapLayout("cilium_lb_affinity_match", flows.AffinityMatch, core.Flag),
    MapLayout("cilium_lb4_source_range", flows.SourceRangeKey, core.Flag),
    MapLayout("cilium_lb4_maglev", flows.RevNatKey, core.Index),
    MapLayout("cilium_lb4_reverse_sk", flows.ReverseSkKey, flows.ReverseSk, unused=_SOCKET_LB),
    MapLayout("cilium_ipmasq_v4", core.CidrKey, core.Flag),
    MapLayout("cilium_encrypt_state", core.Index, core.EncryptConfig, unused=_ENCRYPTION),
    MapLayout("cilium_cidr_v4_dyn", core.CidrKey, core.Flag),
    MapLayout("cilium_cidr_v4_fix", core.CidrKey, core.Flag),
    MapLayout("cilium_world_cidrs4", core.CidrKey, core.Flag, unused="high-scale ipcache only"),
)
_BY_NAME = {layout.name: layout for layout in MAPS}


def map_layout(pinned_name: str) -> MapLayout | None:
    """Return what a pinned map holds, or None for a map that is none of the datapath's.

    A private map is known by the name in front of its suffix (``cilium_policy_01234``).
    """
    private = _PRIVATE.match(pinned_name)
    return _BY_NAME.get(private.group(1) if private else pinned_name)
