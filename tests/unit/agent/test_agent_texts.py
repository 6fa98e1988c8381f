"""What the agent writes for people and other tools: headers, parameters, kube-proxy's rules."""

import re
from dataclasses import replace

import pytest

from lab import Backend, Options, Service, ServicePort
from lab.agent import kubeproxy, nodeconfig, programs
from lab.agent.services import Realiser
from lab.agent.store import Numbers
from lab.plan.inventory import inventory
from topologies.two_nodes import topology

FACTS = inventory(topology)
ALPHA = FACTS.node("alpha")
WEB = Service(
    name="web",
    kind="NodePort",
    ports=(ServicePort(80, 8080, node_port=30080),),
    backends=("web", "server", Backend(pod="other", terminating=True)),
)


def frontends(*services):
    return Realiser(FACTS, Numbers()).frontends(services)


def test_header_has_the_constants_a_pod_was_loaded_with():
    recipe = programs.recipes(FACTS, ALPHA)["lxcclient"].with_identity(4242)
    text = programs.header_text(recipe.load)
    for line in (
        "#define ENDPOINT_ID 266",
        "#define ENDPOINT_IPV4 0x0a01000a /* 10.0.1.10, network byte order */",
        "#define SECURITY_IDENTITY 4242",
        "#define ENABLE_TUNNEL 1",
    ):
        assert f"{line}\n" in text
    assert re.search(r"#define INTERFACE_MAC \{ 0x06, 0x00, 0x0a, .* \} /\* 06:00:0a:", text)


def test_map_list_names_the_pins_of_the_pod():
    recipe = programs.recipes(FACTS, ALPHA)["lxcclient"]
    assert {
        "cilium_calls /sys/fs/bpf/tc/globals/cilium_calls_00266",
        "cilium_policy /sys/fs/bpf/tc/globals/cilium_policy_00266",
    } <= set(programs.map_list(recipe.load).splitlines())


def test_every_device_of_a_node_has_a_recipe():
    devices = set(programs.recipes(FACTS, ALPHA))
    assert devices == {"cilium_host", "cilium_net", "eth0", "cilium_vxlan", "lxcclient", "lxcweb"}


@pytest.mark.parametrize(
    ("options", "name", "value"),
    [
        (Options(), "MODE", "vxlan"),
        (Options(routing="native"), "MODE", "direct"),
        (Options(routing="native"), "TUNNEL_PORT", "nil"),
        (Options(endpoint_routes=True), "ENDPOINT_ROUTES", "true"),
        (Options(prefilter=True), "XDP_DEV", "eth0"),
        (Options(mtu=9000), "MTU", "9000"),
        (Options(), "PROXY_RULE", "true"),
        (Options(proxy_rules=False), "PROXY_RULE", "false"),
        (Options(), "NODE_PORT_IPV4_ADDRS", "eth0=0x1001eac"),
    ],
)
def test_parameter_of_init_sh(options, name, value):
    facts = inventory(replace(topology, options=options))
    found = {item.name: item.value for item in nodeconfig.parameters(facts, facts.node("alpha"))}
    assert found[name] == value


def test_iptables_rules_have_kube_proxys_shape():
    lines = kubeproxy.iptables(frontends(WEB)).splitlines()
    assert (lines[0], lines[-1]) == ("*nat", "COMMIT")
    dispatch = [line for line in lines if line.startswith("-A KUBE-SERVICES -d 10.96.0.10/32")]
    (chain,) = re.findall(r"-j (KUBE-SVC-\w{16})$", dispatch[0])
    drawn = [line for line in lines if line.startswith(f"-A {chain}")]
    assert "--probability 0.50000000000" in drawn[0]
    assert "statistic" not in drawn[1]
    assert len(drawn) == 2, "a terminating backend is not drawn"
    targets = {line.split()[-1] for line in lines if "-j DNAT" in line}
    assert targets == {"10.0.1.11:8080", "10.0.2.10:8080"}
    assert "-d 172.30.0.1/32 -p tcp -m tcp --dport 30080 -j KUBE-MARK-MASQ" in "\n".join(lines)


def test_every_chain_that_is_jumped_to_is_declared():
    text = kubeproxy.iptables(frontends(WEB, replace(WEB, name="b", kind="ClusterIP", ports=(81,))))
    declared = set(re.findall(r"^:(\S+)", text, re.M))
    assert set(re.findall(r"-j (KUBE-\S+)", text)) <= declared


def test_nftables_dispatch_through_one_map():
    text = kubeproxy.nftables(frontends(WEB))
    assert re.search(r"10\.96\.0\.10 \. tcp \. 80 : goto service-\w+", text)
    assert re.search(r"172\.30\.0\.1 \. tcp \. 30080 : goto external-", text)
    assert "numgen random mod 2 vmap" in text
    assert "10.0.2.11" not in text, "a terminating backend is not drawn"
    assert text.count("{") == text.count("}")


def test_no_services_make_an_empty_table_that_loads():
    assert "elements" not in kubeproxy.nftables(())
    assert "KUBE-SVC" not in kubeproxy.iptables(())
