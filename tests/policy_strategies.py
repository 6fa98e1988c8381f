"""Random clusters, policies and packets for hypothesis, small enough to shrink to a story."""

from hypothesis import strategies as st

from lab.policy.objects import (
    CiliumPolicy,
    CiliumRule,
    Cluster,
    ContainerPort,
    Direction,
    IPBlock,
    Machine,
    NetworkPolicy,
    NetworkRule,
    Operator,
    Peer,
    Port,
    Requirement,
    Selector,
    Workload,
)
from lab.policy.oracle import Packet

NAMESPACES = ("x", "y")
KEYS = ("app", "tier")
VALUES = ("a", "b")
PORTS = (53, 79, 80, 95, 96, 443, 8080)
RANGE_ENDS = (80, 95, 443, 9000)
OUTSIDE = ("198.51.100.7", "203.0.113.10", "203.0.113.200")
MACHINES = (Machine("one", ("172.30.0.1", "10.0.1.1")), Machine("two", ("172.30.0.2", "10.0.2.1")))

labels = st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES))
container_ports = st.lists(
    st.builds(
        ContainerPort,
        st.sampled_from(("web", "dns")),
        st.sampled_from(PORTS),
        st.sampled_from(("TCP", "UDP")),
    ),
    max_size=2,
).map(tuple)


@st.composite
def clusters(draw):
    count = draw(st.integers(2, 5))
    pods = []
    for number in range(count):
        node = draw(st.sampled_from((1, 2)))
        pods.append(
            Workload(
                name=f"p{number}",
                namespace=draw(st.sampled_from(NAMESPACES)),
                node=("one", "two")[node - 1],
                address=f"10.0.{node}.{10 + number}",
                labels=draw(labels),
                ports=draw(container_ports),
            )
        )
    namespaces = {name: draw(labels) for name in NAMESPACES}
    return Cluster(namespaces=namespaces, workloads=tuple(pods), machines=MACHINES)


@st.composite
def requirements(draw, keys=KEYS):
    operator = draw(st.sampled_from(Operator))
    set_based = operator in (Operator.IN, Operator.NOT_IN)
    values = draw(st.lists(st.sampled_from(VALUES), min_size=1, max_size=2, unique=True))
    return Requirement(draw(st.sampled_from(keys)), operator, tuple(values) if set_based else ())


def selectors(keys=KEYS):
    pairs = st.dictionaries(st.sampled_from(keys), st.sampled_from(VALUES), max_size=1)
    return st.builds(
        Selector,
        pairs.map(lambda found: tuple(found.items())),
        st.lists(requirements(keys), max_size=1).map(tuple),
    )


cidrs = st.sampled_from(
    ("0.0.0.0/0", "10.0.0.0/16", "10.0.1.0/24", "10.0.1.10/31", "203.0.113.0/24", "203.0.113.0/25")
)
blocks = st.builds(IPBlock, cidrs, st.lists(cidrs, max_size=1).map(tuple))
numbers = st.sampled_from(PORTS)


@st.composite
def ports(draw, protocols=("TCP", "UDP", "SCTP")):
    protocol = draw(st.sampled_from(protocols))
    port = draw(st.one_of(st.none(), numbers, st.sampled_from(("web", "dns"))))
    end = None
    if isinstance(port, int):
        end = draw(st.sampled_from([None, *(last for last in RANGE_ENDS if last >= port)]))
    return Port(protocol, port, end)


def tuples(strategy, size=2, least=0):
    return st.lists(strategy, min_size=least, max_size=size).map(tuple)


peers = st.one_of(
    st.builds(Peer, ip_block=blocks),
    st.builds(Peer, pod_selector=selectors()),
    st.builds(Peer, namespace_selector=selectors()),
    st.builds(Peer, pod_selector=selectors(), namespace_selector=selectors()),
)
network_rules = st.builds(NetworkRule, tuples(peers), tuples(ports()))
network_policies = st.builds(
    NetworkPolicy,
    name=st.sampled_from(("n1", "n2", "n3")),
    namespace=st.sampled_from(NAMESPACES),
    pod_selector=selectors(),
    ingress=tuples(network_rules),
    egress=tuples(network_rules),
    directions=st.frozensets(st.sampled_from(Direction), min_size=1),
)

CILIUM_KEYS = ("app", "k8s:tier", "k8s:io.kubernetes.pod.namespace")
entities = st.sampled_from(("all", "world", "host", "remote-node", "cluster", "none"))
l3 = st.one_of(
    st.just({}),
    tuples(selectors(CILIUM_KEYS)).map(lambda found: {"endpoints": found}),
    tuples(entities, least=1).map(lambda found: {"entities": found}),
    tuples(blocks, least=1).map(lambda found: {"cidrs": found}),
)
l4 = st.one_of(
    st.just({}),
    tuples(ports(("TCP", "UDP", "SCTP", "ANY")), least=1).map(lambda found: {"ports": found}),
    tuples(st.sampled_from((0, 8, 13)), least=1).map(lambda found: {"icmp_types": found}),
)


@st.composite
def cilium_rules(draw):
    return CiliumRule(**draw(l3), **draw(l4), requires=draw(tuples(selectors(), size=1)))


cilium_policies = st.builds(
    CiliumPolicy,
    name=st.sampled_from(("c1", "c2", "c3")),
    namespace=st.sampled_from((*NAMESPACES, None)),
    endpoint_selector=selectors(),
    ingress=tuples(cilium_rules()),
    ingress_deny=tuples(cilium_rules(), size=1),
    egress=tuples(cilium_rules()),
    egress_deny=tuples(cilium_rules(), size=1),
    default_deny_ingress=st.sampled_from((None, None, True, False)),
    default_deny_egress=st.sampled_from((None, None, True, False)),
)

policies = tuples(st.one_of(network_policies, cilium_policies), size=3)
packets = st.one_of(
    st.builds(Packet, st.sampled_from(("TCP", "UDP", "SCTP")), st.sampled_from((*PORTS, 9001))),
    st.builds(Packet, st.just("ICMP"), st.sampled_from((0, 8, 13))),
)
