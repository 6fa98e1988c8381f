"""The answers of ``lab doctor`` against independent witnesses, and that asking leaves nothing."""

import json
import subprocess
from pathlib import Path

import pytest

from lab.kernel import cgroup, probe
from lab.waiting import eventually

pytestmark = pytest.mark.live

DEVICES = {
    "bridge": "type bridge",
    "vxlan_external": "type vxlan external dstport 8472",
    "geneve": "type geneve external",
    "wireguard": "type wireguard",
    "dummy": "type dummy",
    "ifb": "type ifb",
}


@pytest.fixture(scope="module")
def asked():
    """Ask the kernel anew, not the user's cache."""
    return probe._ask_kernel()


@pytest.mark.parametrize(("name", "words"), DEVICES.items(), ids=DEVICES.keys())
def test_device_answer_is_what_ip_finds(asked: dict[str, str], name: str, words: str) -> None:
    line = ["unshare", "-n", "ip", "link", "add", "t0", *words.split()]
    found = subprocess.run(line, capture_output=True, text=True)
    assert (asked[name] == "") == (found.returncode == 0), (asked[name], found.stderr)


PROGRAM_TYPES = {
    "tc_clsact": "sched_cls",
    "xdp_generic": "xdp",
    "cgroup_skb": "cgroup_skb",
    "sock_ops": "sock_ops",
    "sk_msg": "sk_msg",
    "lwt": "lwt_in",
}


def test_program_types_are_those_bpftool_finds(asked: dict[str, str]) -> None:
    said = subprocess.run(["bpftool", "-j", "feature", "probe", "kernel"], capture_output=True)
    types = json.loads(said.stdout)["program_types"]
    ours = {name: asked[name] == "" for name in PROGRAM_TYPES}
    assert ours == {name: types[f"have_{kind}_prog_type"] for name, kind in PROGRAM_TYPES.items()}


def test_asking_leaves_no_program_and_no_control_group(asked: dict[str, str]) -> None:
    def programs() -> list[str]:
        said = subprocess.run(["bpftool", "-j", "prog", "list"], capture_output=True)
        return [p["name"] for p in json.loads(said.stdout) if p.get("name") == "lab_probe"]

    assert eventually(lambda: not programs(), what="the programs of the probes are gone")
    assert not list(Path(cgroup.unified_root()).glob("lab-probe-*"))
