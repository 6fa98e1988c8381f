"""``--set``: options of the datapath on the command line."""

import pytest

from lab.cli.options import changed_options
from lab.cli.root import run
from lab.errors import InputError

FILE = "topologies/two_nodes.py"


def plan(capsys, *words):
    assert run(["plan", FILE, *words]) == 0
    return capsys.readouterr().out


def test_a_plan_follows_the_options_that_are_set(capsys):
    assert "cilium_vxlan" in plan(capsys)
    assert "cilium_vxlan" not in plan(capsys, "--set", "routing=native")


def test_dashes_are_as_good_as_underlines():
    assert changed_options(["host-routing=bpf"]) == {"host_routing": "bpf"}


def test_an_option_without_a_value_is_refused():
    with pytest.raises(InputError, match="--set 'routing'"):
        changed_options(["routing"])


UNKNOWN = {
    "an option": ("rooting=native", "did you mean 'routing'?"),
    "a value": ("routing=nativ", "did you mean 'native'?"),
}


@pytest.mark.parametrize(("setting", "hint"), UNKNOWN.values(), ids=UNKNOWN.keys())
def test_what_is_unknown_is_refused_with_the_nearest_known(capsys, setting, hint):
    assert run(["plan", FILE, "--set", setting]) == 2
    assert hint in capsys.readouterr().err
