"""Options of the datapath as Cilium's own ConfigMaps say them.

``cilium-config`` has the agent's flags as keys, ``ip-masq-agent`` the networks that see pods' own
addresses. Flags that mean nothing to the lab are noted and left out. Names as in Cilium 1.13.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from lab.k8s.objects import Objects
from lab.k8s.tree import Item, documents
from lab.model import Options

CONFIG, MASQUERADE_AGENT = "cilium-config", "ip-masq-agent"

_TRUTH = {"true": "true", "false": "false"}
_FLAGS: dict[str, tuple[str, Mapping[str, str]]] = {
    "tunnel": ("routing", {"vxlan": "vxlan", "disabled": "native"}),
    "routing-mode": ("routing", {"tunnel": "vxlan", "native": "native"}),
    "enable-host-legacy-routing": ("host_routing", {"true": "legacy", "false": "bpf"}),
    "enable-endpoint-routes": ("endpoint_routes", _TRUTH),
    "enable-bpf-masquerade": ("masquerade", {"true": "bpf", "false": "iptables"}),
    # true says nothing new: how it is done stands in enable-bpf-masquerade
    "enable-ipv4-masquerade": ("masquerade", {"true": "", "false": "off"}),
    "ipv4-native-routing-cidr": ("native_routing_cidr", {}),
    "bpf-lb-algorithm": ("lb_algorithm", {"random": "random", "maglev": "maglev"}),
    "bpf-lb-mode": ("nodeport_mode", {"snat": "snat", "dsr": "dsr"}),
    "enable-xdp-prefilter": ("prefilter", _TRUTH),
    "policy-audit-mode": ("policy_audit", _TRUTH),
    "enable-custom-calls": ("custom_calls", _TRUTH),
    "enable-tcx": ("tcx", _TRUTH),
    "enable-l7-proxy": ("proxy_rules", _TRUTH),
    "mtu": ("mtu", {}),
    "bpf-ct-global-tcp-max": ("ct_tcp_max", {}),
}
"""Flag -> option and what its words are there; later flags decide over earlier ones."""


def is_configuration(item: Item) -> bool:
    """Whether an object is a ConfigMap that says something to the lab."""
    fields = item.mapping()
    if "metadata" not in fields or fields["kind"].value != "ConfigMap":
        return False
    name = fields["metadata"].mapping().get("name")
    return name is not None and name.value in (CONFIG, MASQUERADE_AGENT)


def read_configuration(item: Item) -> Objects:
    """Return what a ConfigMap of :func:`is_configuration` says, as settings and notes.

    Raises:
        InputError: a flag has a value that it does not take.
    """
    fields = item.mapping()
    data = fields["data"].mapping() if "data" in fields else {}
    if fields["metadata"].mapping()["name"].value == MASQUERADE_AGENT:
        networks = ",".join(_networks(data))
        return Objects(settings=(("masquerade_exceptions", networks),))
    settings = []
    for flag, (option, words) in _FLAGS.items():
        if flag in data:
            word = data[flag].choice(words) if words else data[flag].text()
            value = words[word] if words else word
            settings += [(option, value)] if value else []
    notes = tuple(
        f"{value.file}:{value.line}: {flag} is no option of the lab"
        for flag, value in data.items()
        if flag not in _FLAGS
    )
    return Objects(settings=tuple(settings), notes=notes)


def _networks(data: Mapping[str, Item]) -> Iterator[str]:
    # the file of the agent is itself YAML inside the ConfigMap, under any key
    for text in data.values():
        for document in documents(text.text(), text.file):
            listed = document.mapping().get("nonMasqueradeCIDRs")
            for network in listed.items() if listed else ():
                yield network.cidr()


def options_of(objects: Objects) -> Options:
    """Return the datapath's options as manifests set them.

    Raises:
        TopologyError: two of them exclude each other.
    """
    return Options().with_words(dict(objects.settings))
