"""Bad input and a bad machine get one clear line, the right exit code, and leave nothing."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lab import Lab
from lab.errors import KernelError
from lab.runtime import registry
from lab.waiting import eventually
from topologies.two_nodes import topology

pytestmark = pytest.mark.live

ROOT = Path(__file__).resolve().parents[2]
LAB = [sys.executable, "-m", "lab"]
UP = [*LAB, "up", "topologies/two_nodes.py", "--name", "bad"]


def run(argv, **environment):
    done = subprocess.run(
        argv,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
        timeout=60,
    )
    assert "Traceback" not in done.stderr
    return done


def refused(done, code, cause, hint):
    assert done.returncode == code, done.stderr
    assert cause in done.stderr
    assert hint in done.stderr
    assert registry.labs() == ()


def test_without_clang_the_package_is_named(tmp_path):
    done = run(
        [
            "unshare",
            "--mount",
            "sh",
            "-c",
            f"mount -t tmpfs t /usr/lib/llvm-14/bin; {shlex.join(UP)}",
        ],
        LAB_CACHE_DIR=str(tmp_path),
    )
    refused(done, 2, "clang", "apt install clang")


def test_a_full_build_cache_is_named(tmp_path):
    inside = f"mount -t tmpfs -o size=64k t {tmp_path}; {shlex.join(UP)}"
    done = run(["unshare", "--mount", "sh", "-c", inside], LAB_CACHE_DIR=str(tmp_path))
    refused(done, 2, str(tmp_path), "LAB_CACHE_DIR")


BROKEN = {
    "a source that does not compile": (
        "\treturn TC_ACT_OOPS;\n",
        "bpf_lxc.c does not compile",
        "use of undeclared identifier 'TC_ACT_OOPS'",
    ),
    "a program that the verifier refuses": (
        "\treturn *(volatile int *)(long)ctx->data;\n",
        "the verifier refused cil_from_container of",
        "bpf_lxc.c:",
    ),
}


@pytest.mark.parametrize(("line", "cause", "where"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_datapath_is_shown_with_its_c_line(tmp_path, line, cause, where):
    shutil.copytree(ROOT / "bpf", tmp_path / "bpf")
    source = tmp_path / "bpf" / "bpf_lxc.c"
    entry = 'SEC("from-container") int cil_from_container(struct __sk_buff *ctx)\n{\n'
    text = source.read_text()
    assert entry in text
    source.write_text(text.replace(entry, entry + line))
    inside = f"mount --bind {tmp_path / 'bpf'} {shlex.quote(str(ROOT / 'bpf'))}; {shlex.join(UP)}"
    done = run(["unshare", "--mount", "sh", "-c", inside], LAB_CACHE_DIR=str(tmp_path))
    refused(done, 2, cause, "hint: ")
    assert where in done.stderr


def test_without_control_groups_the_mount_is_named():
    without = "umount -l /sys/fs/cgroup/unified 2>/dev/null || umount -l /sys/fs/cgroup"
    inside = f"{without}; {shlex.join(UP)}"
    done = run(["unshare", "--mount", "sh", "-c", inside])
    refused(done, 2, "cgroup version 2 is not mounted", "mount -t cgroup2")


def test_without_root_it_says_so():
    done = run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *UP])
    refused(done, 2, "needs root", "sudo")


def test_the_plan_needs_no_root_and_no_home():
    plan = [*LAB, "plan", "topologies/two_nodes.py"]
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "env", "-u"]
    done = run([*nobody, "XDG_CACHE_HOME", *plan], HOME="/nonexistent")
    assert done.returncode == 0, done.stderr
    assert "ip -n alpha link add name cilium_vxlan" in done.stdout
    assert "bpftool prog loadall" in done.stdout


def test_ctrl_c_in_the_middle_of_up_leaves_nothing(tmp_path):
    many = tmp_path / "many.py"
    many.write_text(
        "from lab import Node, Pod, Topology\n"
        "topology = Topology(name='many', nodes=(Node('alpha'),),\n"
        "    pods=tuple(Pod(f'p{n}', node='alpha') for n in range(150)))\n"
    )
    process = subprocess.Popen(
        [*LAB, "up", str(many)], cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    eventually(
        lambda: [record for record in registry.labs() if record.pid != process.pid],
        within_s=20,
        what="the keeper builds",
    )
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=20)
    assert (process.returncode, "Traceback" in said[1]) == (130, False)
    assert registry.labs() == ()
    assert list(registry.run_dir().glob("*")) == []


UNREACHABLE = {
    "an unknown lab": (["exec", "nolab/client", "--", "true"], "no lab called 'nolab'"),
    "a target without lab": (["exec", "client", "--", "true"], "names no place in a lab"),
    "an unknown engine": (["up", "topologies/two_nodes.py", "--engine", "ovs"], "engine 'ovs'"),
    "a lab name with a slash": (["up", "topologies/two_nodes.py", "--name", "a/b"], "slash"),
    "an unknown topology": (["up", "topologies/two_node.py"], "no such file"),
    "a scenario folder without scenarios": (["run", "bpf"], "no scenario"),
}


@pytest.mark.parametrize(("words", "cause"), UNREACHABLE.values(), ids=UNREACHABLE.keys())
def test_wrong_words_are_refused(words, cause):
    done = run([*LAB, *words])
    assert done.returncode == 2
    assert cause in done.stderr
    assert "hint:" in done.stderr


def test_a_killed_keeper_is_reported_to_whoever_used_it():
    lab = Lab(topology).start()
    client = lab.pod("client")
    assert client.ping(lab.pod("server")).ok
    os.kill(lab.keeper.record.pid, signal.SIGKILL)

    def told():
        try:
            client.ping(lab.pod("server"), timeout_s=0.1)
        except KernelError as error:
            return error
        return None

    error = eventually(told, what="the caller is told")
    assert lab.name in str(error)
    lab.stop()


OTHER_CODE = {"of another version": "0123456789abcdef", "too old to tell": None}


@pytest.mark.parametrize("code", OTHER_CODE.values(), ids=OTHER_CODE.keys())
def test_a_lab_kept_up_across_a_change_of_the_code_is_only_taken_down(code):
    """Its keeper would run one half of every command, the changed program the other."""
    assert run(UP).returncode == 0
    try:
        entry = registry.run_dir() / "bad" / "keeper.json"
        known = json.loads(entry.read_text())
        assert len(known.pop("code")) == 16
        entry.write_text(json.dumps(known | ({"code": code} if code else {}) | {"newer": 1}))
        for words in (["exec", "bad/client", "true"], ["trace", "bad/client", "server"]):
            done = run([*LAB, *words])
            assert done.returncode == 2, done.stderr
            assert "built by another version of this program" in done.stderr
            assert "lab down bad" in done.stderr
        assert "bad" in run([*LAB, "ls"]).stdout
    finally:
        assert run([*LAB, "down", "bad"]).returncode == 0
    assert registry.labs() == ()
