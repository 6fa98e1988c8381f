"""The filter language: what it accepts, where it points when it does not, and what it selects."""

import ast
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from traces import ethernet, hop, ipv4, udp, vxlan

from lab.errors import InputError
from lab.observe import functions, ladder, mind, xdp
from lab.observe.filter import parse_filter
from lab.observe.select import Known
from lab.observe.words import HOOKS, VERDICTS
from lab.trace import PacketId, Side, Step, Trace

OBSERVE = Path(functions.__file__).parent
KNOWN = Known(
    places={
        "pod": frozenset({"client", "server", "shop/web"}),
        "node": frozenset({"alpha", "beta"}),
        "device": frozenset({"eth0", "lxcclient"}),
        "place": frozenset({"client", "server", "alpha", "world"}),
    },
    identities={"app=client": frozenset({256}), "team=a": frozenset({256, 257})},
    drop_reasons=frozenset({"POLICY", "POLICY_DENY", "NO_SOCKET"}),
    buffers=frozenset({"my_events"}),
    is_function=frozenset({"ip_rcv_core"}).__contains__,
)


def packet(number, *, node="alpha", device="eth0", reason="", identity=None, tunnel=False):
    """One packet with one hop; ports and addresses follow from its number."""
    source, destination = f"10.0.1.{10 + number}", f"10.0.2.{10 + number}"
    inner = ethernet(
        "02000a00010a",
        "06000a00010a",
        ipv4(source, destination, udp(40000 + number, 5000 + number, b"x")),
    )
    seen = hop(
        1.0, (node, node, device), step=Step.TC_INGRESS, before=vxlan(inner) if tunnel else inner,
        drop_reason=reason, verdict="drop" if reason else "pass", identity=identity,
        side=Side.RECEIVE,
    )  # fmt: skip
    about = PacketId(
        protocol="udp", source=source, destination=destination, source_port=40000 + number,
        destination_port=5000 + number, sender="client" if number % 2 else "server",
        receiver="server" if number % 2 else "client",
    )  # fmt: skip
    return Trace(packet=about, hops=(seen,))


PACKETS = (
    packet(0),
    packet(1, device="lxcclient"),
    packet(2, reason="POLICY", identity=256),
    packet(3, node="beta", tunnel=True, identity=257),
    packet(4, node="beta", reason="NO_SOCKET"),
)

# filter -> numbers of the packets that it selects, written down by hand
ACCEPTED = {
    "": {0, 1, 2, 3, 4},
    "pod == client": {0, 1, 2, 3, 4},
    "from client": {1, 3},
    "to == client and node == beta": {4},
    "node == beta": {3, 4},
    "node != beta": {0, 1, 2},
    "not node beta": {0, 1, 2},
    "device in (lxcclient, eth0)": {0, 1, 2, 3, 4},
    "device in (lxcclient)": {1},
    "dropped": {2, 4},
    "not dropped and udp": {0, 1, 3},
    "drop_reason == POLICY_DENIED": {2},
    "drop_reason == no-socket": {4},
    "identity == 256": {2},
    "identity == app=client": {2},
    "identity 'k8s:team=a'": {2, 3},
    "inner dst 10.0.2.10": {0},
    "dst 10.0.2.12/31": {2, 3},
    "outer dst 172.30.0.2": {3},
    "outer dport 8472": {3},
    "inner dport 5003": {3},
    "dport 8472": set(),
    "port in (40000, 5001)": {0, 1},
    "host 10.0.1.14 or (src 10.0.1.10 && !dropped)": {0, 4},
    "step == 8 and protocol == udp": {0, 1, 2, 3, 4},
    "tcp || icmp": set(),
    "dropped or node == beta and identity == 257": {2, 3, 4},
    "(dropped or node == beta) and identity == 257": {3},
    "pod == client and drop_reason == POLICY and inner dst 10.0.2.12": {2},
}


@pytest.mark.parametrize(("text", "numbers"), ACCEPTED.items(), ids=ACCEPTED.keys())
def test_a_filter_selects_what_it_says(text, numbers):
    wanted = parse_filter(text, KNOWN)
    assert {n for n, one in enumerate(PACKETS) if wanted.matches(one)} == numbers


# filter -> the word that the caret is under (None: behind the end), and a word of the message
REJECTED = {
    "pod == clint": ("clint", "no pod"),
    "nod == alpha": ("nod", "no field"),
    "node == gamma and tcp": ("gamma", "no node"),
    "identity == app=serve": ("app=serve", "label"),
    "drop_reason == POLICI": ("POLICI", "drop reason"),
    "dst 10.0.2": ("10.0.2", "address"),
    "dport 70000": ("70000", "port"),
    "step 20": ("20", "step"),
    "protocol == sctp": ("sctp", "protocol"),
    "evidence == rumour": ("rumour", "evidence"),
    "hook == from-contaner": ("from-contaner", "no hook"),
    "hook in (tc_ingress, tc_ingres)": ("tc_ingres)", "no hook"),
    "verdict != droped": ("droped", "no verdict"),
    "inner node alpha": ("node", "inner"),
    "outer": (None, "missing"),
    "pod ==": (None, "missing"),
    "pod == client and": (None, "missing"),
    "(pod == client": (None, "')'"),
    "pod == client) and tcp": (")", "before this"),
    "pod == client tcp": ("tcp", "before this"),
    "port in 80": ("80", "'('"),
    "== client": ("==", "no field"),
    "tcp and and udp": ("and udp", "no field"),
}


@pytest.mark.parametrize(("text", "says"), REJECTED.items(), ids=REJECTED.keys())
def test_a_mistake_is_marked_where_it_is(text, says):
    word, message = says
    with pytest.raises(InputError) as refused:
        parse_filter(text, KNOWN)
    told, shown, caret = refused.value.message.split("\n")
    at = len(text) if word is None else text.index(word)
    assert shown == f"  {text}"
    assert caret.index("^") - 2 == at
    assert message in told
    assert refused.value.hint


NEAREST = {
    "pod == clint": "client",
    "hook == from-contaner": "from-container",
    "hook == nf_preroutng": "nf_prerouting",
    "hook == my_event": "my_events",
    "verdict == redirct": "redirect",
}


@pytest.mark.parametrize(("text", "name"), NEAREST.items(), ids=NEAREST.keys())
def test_the_nearest_name_is_offered(text, name):
    with pytest.raises(InputError) as refused:
        parse_filter(text, KNOWN)
    assert refused.value.hint == f"did you mean {name!r}?"


HOOK_WORDS = {
    "a hook of the datapath": "from-container",
    "one of the kernel's": "nf_postrouting",
    "in capitals": "TC_INGRESS",
    "a function that may free packets": "ip_rcv_core",
    "the buffer of a probe of one's own": "my_events",
}


@pytest.mark.parametrize("word", HOOK_WORDS.values(), ids=HOOK_WORDS.keys())
def test_a_hook_may_be(word):
    assert parse_filter(f"hook == {word}", KNOWN).root.values in ((word,), (word.lower(),))


def words_written(calls, position, keyword):
    """Constants that the tracer's own text gives as hooks or verdicts."""
    for file in OBSERVE.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            given = [one.value for one in node.keywords if one.arg == keyword]
            given += node.args[position : position + 1] if name in calls else []
            for one in given:
                if isinstance(one, ast.Constant) and isinstance(one.value, str) and one.value:
                    yield one.value


def test_every_hook_that_the_tracer_writes_is_known():
    written = {*words_written({"add", "_probed"}, 2, "hook"), *words_written({"Drop"}, 1, "hook")}
    written |= set(words_written({"Function"}, 2, "hook"))
    assert {"gso_segment", "nf_egress", "socket_queue"} <= written, "the search finds them"
    assert written <= HOOKS


def test_every_verdict_that_the_tracer_writes_is_known():
    written = {*words_written(set(), 0, "verdict"), *functions._TC.values()}
    written |= {*functions._XDP.values(), *mind._ACTIONS.values(), *ladder._GRO.values()}
    written |= {verdict for verdict, _ in xdp.XDP.values()}
    assert {"delivered", "split"} <= written, "the search finds them"
    assert written <= VERDICTS


# -- a model of the language that shares nothing with the parser -----------------------------------

FACTS = {
    "node": lambda one: {one.hops[0].node},
    "device": lambda one: {one.hops[0].device},
    "from": lambda one: {one.packet.sender},
    "dport": lambda one: {str(one.packet.destination_port)},
    "identity": lambda one: {str(one.hops[0].identity)},
}
TESTS = st.one_of(
    st.tuples(st.just("node"), st.sampled_from(["alpha", "beta"])),
    st.tuples(st.just("device"), st.sampled_from(["eth0", "lxcclient"])),
    st.tuples(st.just("from"), st.sampled_from(["client", "server"])),
    st.tuples(st.just("dport"), st.integers(4999, 5006).map(str)),
    st.tuples(st.just("identity"), st.sampled_from(["255", "256", "257"])),
    st.tuples(st.just("dst"), st.sampled_from(["10.0.2.10", "10.0.2.12/31", "10.0.0.0/8"])),
    st.tuples(st.just("dropped"), st.just("")),
)
TREES = st.recursive(
    TESTS,
    lambda inside: st.one_of(
        st.tuples(st.just("not"), inside),
        st.tuples(st.sampled_from(["and", "or"]), inside, inside),
    ),
    max_leaves=8,
)


def written(tree):
    if tree[0] == "not":
        return f"not ({written(tree[1])})"
    if tree[0] in ("and", "or"):
        return f"({written(tree[1])}) {tree[0]} ({written(tree[2])})"
    return f"{tree[0]} == {tree[1]}" if tree[1] else tree[0]


def selected(tree, one):
    if tree[0] == "not":
        return not selected(tree[1], one)
    if tree[0] in ("and", "or"):
        left, right = selected(tree[1], one), selected(tree[2], one)
        return (left and right) if tree[0] == "and" else (left or right)
    if tree[0] == "dropped":
        return one.hops[0].verdict == "drop"
    if tree[0] == "dst":
        return ip_address(one.packet.destination) in ip_network(tree[1])
    return tree[1] in FACTS[tree[0]](one)


@given(TREES)
def test_any_filter_selects_what_a_model_selects(tree):
    wanted = parse_filter(written(tree), KNOWN)
    assert [wanted.matches(one) for one in PACKETS] == [selected(tree, one) for one in PACKETS]
