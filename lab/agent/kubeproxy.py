"""The same services as kube-proxy would write them: rules for iptables-restore, or for nft.

For comparison: a lab without the datapath carries them in its nodes' netfilter. The shape is
kube-proxy's: a dispatch chain, one chain per service that draws a backend, one per backend.
Source: Kubernetes ``pkg/proxy/iptables``, ``pkg/proxy/nftables``.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator

from lab.agent.services import ANY_ADDRESS, BackendFacts, Frontend, for_new_flows

MASQUERADE_MARK = 0x4000
_EXTERNAL = ("NodePort", "ExternalIP", "LoadBalancer")


def _digest(prefix: str, *words: object) -> str:
    """Name a chain as kube-proxy does: a prefix and sixteen characters of a hash."""
    raw = hashlib.sha256(" ".join(map(str, words)).encode()).digest()
    return f"{prefix}-{base64.b32encode(raw).decode()[:16]}"


def _active(item: Frontend) -> tuple[BackendFacts, ...]:
    return for_new_flows(item.backends)


# 0.0.0.0 is a row of Cilium's tables, and no address that a packet carries
def _shown(frontends: Iterable[Frontend]) -> Iterator[Frontend]:
    return (item for item in frontends if item.address != ANY_ADDRESS)


def iptables(frontends: Iterable[Frontend]) -> str:
    """Return the ``nat`` table of a node for ``iptables-restore``.

    Args:
        frontends: those the node holds; affinity becomes the ``recent`` match.
    """
    chains = ["KUBE-SERVICES", "KUBE-POSTROUTING", "KUBE-MARK-MASQ"]
    # 0x4000, set where the service is chosen and looked at behind routing: the source may change
    # only there
    rules = [
        "-A PREROUTING -j KUBE-SERVICES",
        "-A OUTPUT -j KUBE-SERVICES",
        "-A POSTROUTING -j KUBE-POSTROUTING",
        f"-A KUBE-MARK-MASQ -j MARK --or-mark {MASQUERADE_MARK:#x}",
        f"-A KUBE-POSTROUTING -m mark ! --mark {MASQUERADE_MARK:#x}/{MASQUERADE_MARK:#x} -j RETURN",
        f"-A KUBE-POSTROUTING -j MARK --xor-mark {MASQUERADE_MARK:#x}",
        "-A KUBE-POSTROUTING -j MASQUERADE --random-fully",
    ]
    made: set[str] = set()
    for item in _shown(frontends):
        protocol = item.protocol.lower()
        match = f"-d {item.address}/32 -p {protocol} -m {protocol} --dport {item.port}"
        service = _digest("KUBE-SVC", item.service.title, item.protocol, _backend_names(item))
        if not _active(item):
            continue
        # answers must come back through this node, which alone knows the translation
        if item.kind in _EXTERNAL:
            rules.append(f"-A KUBE-SERVICES {match} -j KUBE-MARK-MASQ")
        rules.append(f"-A KUBE-SERVICES {match} -j {service}")
        if service not in made:
            made.add(service)
            chains.append(service)
            rules += _service_chain(service, item, chains)
    lines = ["*nat", *(f":{chain} - [0:0]" for chain in chains), *rules, "COMMIT"]
    return "\n".join(lines) + "\n"


def _backend_names(item: Frontend) -> str:
    return " ".join(f"{backend.address}:{backend.port}" for backend in _active(item))


def _service_chain(service: str, item: Frontend, chains: list[str]) -> Iterator[str]:
    members = _active(item)
    ends = [_digest("KUBE-SEP", service, end.address, end.port) for end in members]
    chains += ends
    timeout = item.service.affinity_s
    if timeout:
        for end in ends:
            recent = f"-m recent --name {end} --rcheck --seconds {timeout} --reap"
            yield f"-A {service} {recent} -j {end}"
    for number, end in enumerate(ends):
        # each rule draws among those that are left: 1/3, 1/2, then all, which is a third each
        left = len(ends) - number
        draw = f"-m statistic --mode random --probability {1 / left:.11f} " if left > 1 else ""
        yield f"-A {service} {draw}-j {end}"
    protocol = item.protocol.lower()
    for end, backend in zip(ends, members, strict=True):
        # a pod that reaches itself must not see itself as the client
        yield f"-A {end} -s {backend.address}/32 -j KUBE-MARK-MASQ"
        recent = f"-m recent --name {end} --set " if timeout else ""
        target = f"{backend.address}:{backend.port}"
        yield f"-A {end} -p {protocol} {recent}-m {protocol} -j DNAT --to-destination {target}"


def nftables(frontends: Iterable[Frontend]) -> str:
    """Return the table of a node for ``nft -f``: one verdict map instead of a list of rules.

    Args:
        frontends: those the node holds; affinity is left out.
    """
    elements: list[str] = []
    chains: list[str] = []
    made: set[str] = set()
    for item in _shown(frontends):
        members = _active(item)
        if not members:
            continue
        service = _digest("service", item.service.title, item.protocol, _backend_names(item))
        entry = _digest("external", service) if item.kind in _EXTERNAL else service
        elements.append(f"{item.address} . {item.protocol.lower()} . {item.port} : goto {entry}")
        if service not in made:
            made.add(service)
            chains += _nft_service(service, item)
        if entry != service and entry not in made:
            made.add(entry)
            lines = f"jump mark-for-masquerade\n    goto {service}"
            chains.append(f"  chain {entry} {{\n    {lines}\n  }}")
    listed = ",\n      ".join(elements)
    known = f"\n    elements = {{\n      {listed}\n    }}" if elements else ""
    return _NFT_HEAD + "\n".join(chains) + _NFT_TAIL.replace("ELEMENTS", known)


def _nft_service(service: str, item: Frontend) -> Iterator[str]:
    members = _active(item)
    ends = [_digest("endpoint", service, end.address, end.port) for end in members]
    for end, backend in zip(ends, members, strict=True):
        target = f"{backend.address}:{backend.port}"
        yield (
            f"  chain {end} {{\n"
            f"    ip saddr {backend.address} jump mark-for-masquerade\n"
            f"    meta l4proto {item.protocol.lower()} dnat to {target}\n  }}"
        )
    drawn = ", ".join(f"{number} : goto {end}" for number, end in enumerate(ends))
    yield f"  chain {service} {{\n    numgen random mod {len(ends)} vmap {{ {drawn} }}\n  }}"


_NFT_HEAD = f"""table ip kube-proxy {{
  chain mark-for-masquerade {{
    mark set mark or {MASQUERADE_MARK:#x}
  }}
"""
_NFT_TAIL = f"""
  map service-ips {{
    type ipv4_addr . inet_proto . inet_service : verdict
    comment "cluster IPs, external addresses and node ports"ELEMENTS
  }}
  chain services {{
    ip daddr . meta l4proto . th dport vmap @service-ips
  }}
  chain nat-prerouting {{
    type nat hook prerouting priority dstnat
    jump services
  }}
  chain nat-output {{
    type nat hook output priority -100
    jump services
  }}
  chain nat-postrouting {{
    type nat hook postrouting priority srcnat
    mark and {MASQUERADE_MARK:#x} == 0 return
    mark set mark xor {MASQUERADE_MARK:#x}
    masquerade fully-random
  }}
}}
"""
