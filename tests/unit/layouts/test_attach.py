"""The attach table says what the compiled objects contain, under Cilium's names."""

import shutil

import pytest

from lab.datapath.build import build_objects
from lab.datapath.objects import tail_calls
from lab.errors import InputError
from lab.kernel.btf import read_object
from lab.layouts.attach import (
    ATTACH_POINTS,
    CALL_POLICY,
    CALLS,
    OBJECTS,
    Hook,
    Role,
    Side,
    attach_points,
    object_of,
    private_pins,
)

needs_clang = pytest.mark.skipif(shutil.which("clang") is None, reason="clang is not installed")


@needs_clang
@pytest.mark.parametrize("point", ATTACH_POINTS, ids=lambda p: f"{p.hook.value} on {p.role.value}")
def test_program_and_section_carry_the_hooks_name(point):
    path = build_objects([point.object])[point.object]
    sections = {f.name: f.section for f in read_object(path).functions}
    # the XDP entry is spoken of as "xdp", its section is the name it has always had
    section = "from-netdev" if point.hook is Hook.XDP else point.hook.value
    assert sections[point.program] == section


@needs_clang
def test_every_entry_of_the_objects_is_in_the_table():
    table = {(point.object, point.program) for point in ATTACH_POINTS}
    for name, path in build_objects(OBJECTS).items():
        entries = {f.name for f in read_object(path).functions if f.name.startswith("cil_")}
        assert {(name, entry) for entry in entries} <= table


@needs_clang
@pytest.mark.parametrize("name", OBJECTS)
def test_no_slot_is_claimed_twice(name):
    calls = tail_calls(build_objects([name])[name], {"endpoint_id": 266})
    places = [(call.map, call.slot) for call in calls]
    assert len(places) == len(set(places))
    assert {call.map for call in calls} <= {CALLS, CALL_POLICY}


@needs_clang
def test_a_slot_named_by_a_constant_needs_the_constant():
    path = build_objects(["bpf_lxc"])["bpf_lxc"]
    slots = {c.map: c.slot for c in tail_calls(path, {"endpoint_id": 266}) if c.map == CALL_POLICY}
    assert slots == {CALL_POLICY: 266}
    with pytest.raises(InputError, match="ENDPOINT_ID needs the constant endpoint_id"):
        tail_calls(path, {})


PINS = {
    "a pod": (Role.LXC, False, "cilium_calls_00266", "cilium_policy_00266"),
    "cilium_host": (Role.HOST, False, "cilium_calls_hostns_00266", "cilium_policy_00266"),
    "cilium_net": (Role.NET, False, "cilium_calls_netdev_00003", "cilium_policy_00266"),
    "the uplink": (Role.NATIVE, False, "cilium_calls_netdev_00003", "cilium_policy_00266"),
    "the tunnel": (Role.OVERLAY, False, "cilium_calls_overlay_2", None),
    "XDP on the uplink": (Role.NATIVE, True, "cilium_calls_xdp_00003", None),
}


@pytest.mark.parametrize(("role", "xdp", "calls", "policy"), PINS.values(), ids=PINS.keys())
def test_private_maps_have_ciliums_names(role, xdp, calls, policy):
    pins = private_pins(role, endpoint_id=266, ifindex=3, xdp=xdp)
    assert (pins["cilium_calls"], pins.get("cilium_policy")) == (calls, policy)


SIDES = {
    "what a pod sends arrives at its veth's host end": (Hook.FROM_CONTAINER, Side.INGRESS),
    "what it receives leaves there": (Hook.TO_CONTAINER, Side.EGRESS),
    "what the node sends leaves through cilium_host": (Hook.FROM_HOST, Side.EGRESS),
    "what the node receives arrives there": (Hook.TO_HOST, Side.INGRESS),
    "the network arrives at the uplink": (Hook.FROM_NETDEV, Side.INGRESS),
    "and leaves there": (Hook.TO_NETDEV, Side.EGRESS),
    "the tunnel's packets arrive": (Hook.FROM_OVERLAY, Side.INGRESS),
    "and leave": (Hook.TO_OVERLAY, Side.EGRESS),
}


@pytest.mark.parametrize(("hook", "side"), SIDES.values(), ids=SIDES.keys())
def test_each_hook_has_one_side(hook, side):
    assert {point.side for point in ATTACH_POINTS if point.hook is hook} == {side}


def test_optional_points_are_given_on_request_only():
    assert [p.hook for p in attach_points(Role.LXC, "bpf_lxc")] == [Hook.FROM_CONTAINER]
    asked = attach_points(Role.LXC, "bpf_lxc", optional=True)
    assert [p.hook for p in asked] == [Hook.FROM_CONTAINER, Hook.TO_CONTAINER]


def test_every_role_has_its_tc_object():
    assert [object_of(role) for role in Role] == [
        "bpf_lxc",
        "bpf_host",
        "bpf_host",
        "bpf_overlay",
        "bpf_host",
    ]
