"""The agent as a child of the keeper: it may go, the datapath stays, the next one takes over."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from lab import Lab, Pod
from lab.errors import InputError, KernelError, LabError, TopologyError
from lab.policy.objects import IPBlock, NetworkPolicy, NetworkRule, Peer, Selector
from lab.runtime import registry
from lab.waiting import eventually
from topologies.two_nodes import topology

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def lab():
    with Lab(topology) as lab:
        yield lab


def reaches(source, target):
    return source.ping(target, timeout_s=0.5).ok


def test_every_pod_and_node_is_an_endpoint(lab):
    found = {(item.node, item.pod or item.node) for item in lab.agent.endpoints()}
    assert found == {
        ("alpha", "alpha"), ("alpha", "client"), ("alpha", "web"),
        ("beta", "beta"), ("beta", "server"), ("beta", "other"),
    }  # fmt: skip


def test_identities_are_those_of_the_plan(lab):
    of_pods = {item.pod: item.identity for item in lab.agent.endpoints() if item.pod}
    assert of_pods == {pod.name: pod.identity for pod in lab.facts.pods}


def test_state_directory_holds_header_object_and_map_list(lab):
    client = lab.pod("client")
    folder = f"/run/cilium/state/{client.facts.endpoint_id}"
    node = lab.node("alpha")
    eventually(lambda: node.run(["ls", folder]).returncode == 0, what="state directory")
    listed = node.run(["ls", folder]).stdout.split()
    assert {"ep_config.h", "bpf_lxc.o", "maps"} <= set(listed)
    header = node.run(["cat", f"{folder}/ep_config.h"]).stdout
    assert f"#define ENDPOINT_ID {client.facts.endpoint_id}\n" in header


def test_the_node_has_a_state_directory_with_one_object_per_device(lab):
    folder = f"/run/cilium/state/{lab.node('alpha').facts.host_endpoint_id}"
    node = lab.node("alpha")
    eventually(lambda: node.run(["ls", folder]).returncode == 0, what="state directory")
    assert {
        "ep_config.h", "bpf_host.o", "bpf_host_cilium_net.o", "bpf_netdev_eth0.o", "bpf_overlay.o",
    } <= set(node.run(["ls", folder]).stdout.split())  # fmt: skip


def test_every_managed_device_carries_a_program(lab):
    node = lab.node("alpha")
    for device in ("lxcclient", "lxcweb", "cilium_host", "cilium_net", "cilium_vxlan", "eth0"):
        found = node.run(["tc", "filter", "show", "dev", device, "ingress"]).stdout
        assert "direct-action" in found, device


def test_datapath_goes_on_without_agent(lab):
    lab.agent.kill()
    assert not lab.agent.running
    assert reaches(lab.pod("client"), lab.pod("server"))
    with pytest.raises(KernelError, match="agent does not answer"):
        lab.agent.endpoints()
    lab.agent.start()
    assert lab.agent.status().started == 2


def test_regeneration_exchanges_programs_and_is_logged(lab):
    client, node = lab.pod("client"), lab.node("alpha")
    before = node.run(["tc", "filter", "show", "dev", "lxcclient", "ingress"]).stdout
    revision = node.agent.regenerate("client", "a test asked")
    after = node.run(["tc", "filter", "show", "dev", "lxcclient", "ingress"]).stdout
    assert before != after
    assert f"regenerated: a test asked; revision {revision}" in node.agent.log("client")[-1]
    assert reaches(client, lab.pod("server"))
    assert reaches(lab.pod("web"), client)


def test_an_exchange_left_half_way_is_done_again(lab):
    """A tail-call map under its staging name is what a killed agent leaves."""
    node, calls = lab.node("alpha"), "/sys/fs/bpf/tc/globals/cilium_calls_00266"
    node.run(["bpftool", "map", "pin", "pinned", calls, f"{calls}_next"], check=True)
    lab.agent.restart()
    assert "the agent before was interrupted" in node.agent.log("client")[-1]
    assert "_next" not in node.run(["ls", "/sys/fs/bpf/tc/globals"], check=True).stdout
    assert reaches(lab.pod("client"), lab.pod("server"))


def test_a_name_left_half_way_is_taken_away(lab):
    """Between pinning a map and giving it its name an agent may be killed, too."""
    node, pins = lab.node("alpha"), "/sys/fs/bpf/tc/globals"
    for name in ("cilium_calls_00266", "cilium_policy_00266"):
        left = f"{pins}/{name}_next_77"
        node.run(["bpftool", "map", "pin", "pinned", f"{pins}/{name}", left], check=True)
    lab.agent.restart()
    assert lab.agent.status().endpoints == 6
    assert "_next" not in node.run(["ls", pins], check=True).stdout
    assert reaches(lab.pod("client"), lab.pod("server"))


def test_node_endpoint_can_be_regenerated_too(lab):
    lab.node("beta").agent.regenerate("beta")
    assert reaches(lab.pod("client"), lab.pod("server"))
    assert reaches(lab.node("beta"), lab.pod("client"))


def test_pod_comes_and_goes():
    with Lab(topology) as lab:
        beta = lab.node("beta")
        before = {pod.name for pod in beta.facts.pods}
        lab.add_pod(Pod("late", node="beta", labels={"app": "late"}))
        assert {pod.name for pod in lab.node("beta").facts.pods} == before | {"late"}
        late = lab.pod("late")
        assert reaches(lab.pod("client"), late)
        assert reaches(late, lab.pod("other"))
        lab.remove_pod("late")
        assert not reaches(lab.pod("client"), late.address)
        assert "lxclate" not in lab.node("beta").run(["ip", "-br", "link"]).stdout
        assert reaches(lab.pod("client"), lab.pod("server"))


def test_a_successor_at_the_same_address_inherits_no_flow():
    """What answered the pod before would pass the policy of the one that follows."""
    port, source = 7001, 40001
    first = Pod("late", node="beta", labels={"app": "late"})
    closed = NetworkPolicy(name="closed", pod_selector=Selector.of(app="late"), ingress=())
    with Lab(topology) as lab:
        lab.add_pod(first)
        lab.apply(closed)
        address = lab.pod("late").address
        with lab.pod("other").serve_udp(port):
            assert lab.pod("late").send_udp(lab.pod("other"), port, source_port=source).ok
        lab.remove_pod("late")
        lab.add_pod(replace(first, name="next"))
        assert lab.pod("next").address == address
        with lab.pod("next").serve_udp(source):
            assert not lab.pod("other").send_udp(address, source, source_port=port).ok


def test_pod_added_after_restart_of_the_agent():
    with Lab(topology) as lab:
        lab.agent.restart()
        lab.add_pod(Pod("late", node="alpha", labels={"app": "late"}))
        assert reaches(lab.pod("server"), lab.pod("late"))


def numbers(lab):
    return {item.pod: item.identity for item in lab.agent.endpoints() if item.pod}


def half_added(lab, pod):
    """The agent is told of a pod that has no namespace: it gives a number, and gives up."""
    following = replace(lab.topology, pods=(*lab.topology.pods, pod))
    with pytest.raises(LabError):
        lab.agent.ask("pods", type(None), topology=following.to_json())


def added_and_removed(lab, pod):
    lab.add_pod(pod)
    lab.remove_pod(pod.name)


@pytest.mark.parametrize("before", [added_and_removed, half_added])
def test_a_number_given_before_a_restart_is_not_given_to_others_after_it(before):
    """Entries of flows that are still remembered carry it, on every node."""
    with Lab(topology) as lab:
        highest = max(numbers(lab).values())
        before(lab, Pod("late", node="beta", labels={"app": "late"}))
        lab.agent.restart()
        lab.add_pod(Pod("next", node="beta", labels={"app": "next"}))
        assert numbers(lab)["next"] == highest + 2


def test_so_it_is_with_the_numbers_of_networks(lab):
    def networks():
        return {item.id for item in lab.agent.identities() if item.id > 1 << 24}

    def rule(cidr):
        peer = Peer(ip_block=IPBlock(cidr))
        none = Selector.of(app="none")
        return NetworkPolicy(name="in", pod_selector=none, ingress=(NetworkRule((peer,)),))

    lab.apply(rule("198.51.100.0/24"))
    first = networks()
    lab.delete(rule("198.51.100.0/24"))
    lab.agent.restart()
    lab.apply(rule("192.0.2.0/24"))
    assert min(networks()) > max(first)
    lab.delete(rule("192.0.2.0/24"))


def test_who_comes_later_knows_the_same_numbers():
    with Lab(topology) as lab:
        added_and_removed(lab, Pod("late", node="beta", labels={"app": "late"}))
        lab.add_pod(Pod("next", node="beta", labels={"app": "next"}))
        for one in (lab, Lab.attach(lab.name)):
            assert {pod.name: pod.identity for pod in one.facts.pods} == numbers(lab)


def test_pods_that_several_add_at_once_have_addresses_of_their_own():
    def add(turn):
        with Lab.attach(lab.name) as guest:
            guest.add_pod(Pod(f"late{turn}", node=("alpha", "beta")[turn % 2]))

    with Lab(topology) as lab:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(add, range(4)))
        with Lab.attach(lab.name) as guest:
            added = [pod for pod in guest.facts.pods if pod.name.startswith("late")]
            assert len({pod.address for pod in added}) == 4
            assert all(reaches(guest.pod("client"), guest.pod(pod.name)) for pod in added)
        [record] = [record for record in registry.labs() if record.name == lab.name]
        assert {pod.name for pod in added} < set(record.pods)


def test_a_lab_of_somebody_else_stays_up_after_a_with_block():
    with Lab(topology) as lab:
        with Lab.attach(lab.name) as guest:
            assert reaches(guest.pod("client"), guest.pod("server"))
        assert reaches(lab.pod("client"), lab.pod("server"))


def test_without_agent_a_pod_is_refused_and_nothing_is_left():
    with Lab(topology) as lab:
        lab.agent.kill()
        with pytest.raises(KernelError):
            lab.add_pod(Pod("late", node="beta"))
        assert "lxclate" not in lab.node("beta").run(["ip", "-br", "link"]).stdout
        lab.agent.start()
        lab.add_pod(Pod("late", node="beta"))
        assert reaches(lab.pod("client"), lab.pod("late"))


GONE = {
    "a misspelt one": ("clinet", "'clinet' does not exist", "'client'"),
    "one of no known name": ("zz", "'zz' does not exist", "known: client"),
    "a node": ("beta", "'beta' does not exist", "known: client"),
}


@pytest.mark.parametrize(("name", "says", "hint"), GONE.values(), ids=GONE.keys())
def test_a_pod_that_is_not_there_cannot_be_removed(lab, name, says, hint):
    with pytest.raises(TopologyError, match=says) as refused:
        lab.remove_pod(name)
    assert hint in refused.value.hint


def test_a_pod_is_removed_once_whoever_asks():
    with Lab(topology) as lab:
        lab.add_pod(Pod("late", node="beta"))
        other = Lab.attach(lab.name)
        lab.add_pod(Pod("later", node="beta"))
        lab.remove_pod("late")
        for one in (lab, other):
            with pytest.raises(TopologyError, match="'late' does not exist") as refused:
                one.remove_pod("late")
            assert "'later'" in refused.value.hint
        other.remove_pod("later")
        lab.add_pod(Pod("last", node="beta"))
        assert reaches(lab.pod("client"), lab.pod("last"))


def test_of_two_who_remove_a_pod_at_once_one_is_told():
    with Lab(topology) as lab, ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(one.remove_pod, "other") for one in (lab, Lab.attach(lab.name))]
        errors = [error for one in asked if (error := one.exception())]
        assert all(isinstance(error, TopologyError) for error in errors), errors
        assert len(errors) == 1
        assert {pod.name for pod in lab.facts.pods} >= {"client", "server"}
        assert reaches(lab.pod("client"), lab.pod("server"))


def test_impossible_pod_is_refused(lab):
    with pytest.raises(TopologyError, match="two pods are called 'client'"):
        lab.add_pod(Pod("client", node="alpha"))


def test_unknown_endpoint_is_refused_with_a_suggestion(lab):
    with pytest.raises(InputError, match="no endpoint 'clinet'") as caught:
        lab.node("alpha").agent.regenerate("clinet")
    assert "client" in caught.value.hint


def test_node_config_has_the_names_of_init_sh(lab):
    values = {item.name: item.value for item in lab.node("alpha").agent.config()}
    assert (values["IP4_HOST"], values["MODE"], values["RUNDIR"], values["NATIVE_DEVS"]) == (
        "10.0.1.1", "vxlan", "/run/cilium/state", "eth0",
    )  # fmt: skip
