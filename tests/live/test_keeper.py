"""The keeper owns a lab: whatever ends it, the kernel removes the lab."""

import ctypes
import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from lab import Lab, Node, Options, Pod, Topology
from lab.errors import InputError, KernelError, LabError
from lab.plan import plan
from lab.runtime import registry
from lab.waiting import eventually

pytestmark = pytest.mark.live

BARE = Topology(
    name="bare",
    nodes=(Node("alpha"), Node("beta")),
    pods=(Pod("client", node="alpha"), Pod("server", node="beta")),
    options=Options(datapath=False),
)


def machine():
    """What of the machine a lab must leave as it was; other labs may come and go meanwhile."""
    commands = (
        ["ip", "-o", "link"],
        ["ip", "-o", "addr"],
        ["ip", "rule"],
        ["ip", "route", "show", "table", "all"],
        ["ip", "netns"],
        ["nft", "list", "ruleset"],
        ["tc", "qdisc"],
        ["tc", "filter", "show", "dev", "lo", "ingress"],
        ["find", "/sys/fs/bpf", "-mindepth", "1", "-maxdepth", "1"],
    )
    state = {
        " ".join(argv): subprocess.run(argv, capture_output=True, text=True).stdout
        for argv in commands
    }
    state["sysctls"] = _settings(Path("/proc/sys/net"))
    state["mounts"] = sorted(
        line for line in Path("/proc/self/mounts").read_text().splitlines() if " nsfs " not in line
    )
    state["registry"] = sorted(path.name for path in registry.run_dir().glob("*"))
    return state


def held_namespaces(pid):
    """The network namespaces that a keeper has made, by inode."""
    own = os.readlink("/proc/self/ns/net")
    links = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            links.add(os.readlink(entry))
    return {link for link in links if link.startswith("net:") and link != own}


def in_use(namespaces):
    """Which of these namespaces any process is in, or holds open."""
    found = set()
    for pattern in ("[0-9]*/ns/net", "[0-9]*/fd/*"):
        for entry in Path("/proc").glob(pattern):
            with suppress(OSError):
                found.add(os.readlink(entry))
    return namespaces & found


def _settings(root):
    """Every readable setting of the machine's own network, but for counters that count."""
    found = {}
    for path in sorted(root.rglob("*")):
        if path.is_file() and not path.name.endswith(("_count", "orphans", "cookie", "entropy")):
            try:
                found[str(path)] = path.read_bytes()
            except OSError:
                continue
    return found


def swept(record):
    registry.sweep()
    return not Path(record.cgroup).exists()


def as_before(before):
    registry.sweep()
    return machine() == before


@pytest.mark.parametrize("engine", ["netns", "mininet"])
def test_a_lab_leaves_the_machine_as_it_was(engine):
    before = machine()
    with Lab(BARE, engine=engine) as lab:
        assert lab.node("alpha").ping(lab.node("beta")).ok
    eventually(lambda: as_before(before), what="the machine is as before")


@pytest.mark.parametrize("engine", ["netns", "mininet"])
def test_a_killed_keeper_takes_the_lab_with_it(engine):
    before = machine()
    lab = Lab(BARE, engine=engine).start(attached=False)
    lab.node("alpha").run(["true"])
    namespaces = held_namespaces(lab.keeper.record.pid)
    os.kill(lab.keeper.record.pid, signal.SIGKILL)
    eventually(lambda: not in_use(namespaces), what="the namespaces are gone")
    eventually(lambda: as_before(before), what="the machine is as before")
    with pytest.raises(InputError):
        Lab.attach(lab.name)


def test_a_killed_caller_takes_its_lab_with_it():
    before = machine()
    code = (
        "from tests.live.test_keeper import BARE; from lab import Lab; import os, signal\n"
        "with Lab(BARE) as lab: os.kill(os.getpid(), signal.SIGKILL)"
    )
    root = Path(__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == -signal.SIGKILL
    eventually(lambda: as_before(before), what="the machine is as before")


STEPS = range(1, len(plan(BARE)) + 1)


@pytest.mark.parametrize("step", STEPS)
def test_an_exception_after_any_step_leaves_nothing(step):
    before = machine()
    with pytest.raises(KernelError, match="provoked"):
        Lab(BARE, fault={"after": step, "kind": "raise"}).start()
    eventually(lambda: as_before(before), what="the machine is as before")


@pytest.mark.parametrize("step", STEPS)
def test_sigkill_after_any_step_leaves_nothing(step):
    before = machine()
    lab = Lab(BARE, fault={"after": step, "kind": "hold"}).start()
    record = lab.keeper.record
    namespaces = held_namespaces(record.pid)
    assert in_use(namespaces) == namespaces != set()
    os.kill(record.pid, signal.SIGKILL)
    lab.close()
    eventually(lambda: not in_use(namespaces), what="the namespaces are gone")
    eventually(lambda: as_before(before), what="the machine is as before")
    eventually(lambda: swept(record), what="the control group is gone")


WHOLE = Topology(name="whole", nodes=(Node("alpha"),), pods=(Pod("client", node="alpha"),))
DATAPATH_STEPS = range(
    len(plan(replace(WHOLE, options=Options(datapath=False)))) + 1, len(plan(WHOLE)) + 1
)


def held_objects(pid):
    """Ids of the BPF programs, maps and links that a keeper holds, or pins in its private bpffs."""
    found = set()
    for entry in Path(f"/proc/{pid}/fdinfo").iterdir():
        with suppress(FileNotFoundError):  # loads go on in the background
            found |= ids_in(entry.read_text())
    libbpf = ctypes.CDLL("libbpf.so.1")
    for pin in Path(f"/proc/{pid}/root/run/nodes").glob("*/bpf/tc/globals/*"):
        fd = libbpf.bpf_obj_get(str(pin).encode())
        if fd >= 0:
            found |= ids_in(Path(f"/proc/self/fdinfo/{fd}").read_text())
            os.close(fd)
    return found


def ids_in(fdinfo):
    """Which BPF objects the text of an fdinfo file names."""
    fields = [line.partition(":") for line in fdinfo.splitlines()]
    return {
        (kind.removesuffix("_id"), int(number))
        for kind, _, number in fields
        if kind in ("prog_id", "map_id", "link_id")
    }


def existing_objects():
    """Ids of all BPF programs, maps and links of the machine.

    By id only: a tool that opens a dying tail-call map (bpftool does) holds up its end.
    """
    libbpf = ctypes.CDLL("libbpf.so.1")
    found = set()
    for kind in ("prog", "map", "link"):
        number = ctypes.c_uint32(0)
        while not getattr(libbpf, f"bpf_{kind}_get_next_id")(number.value, ctypes.byref(number)):
            found.add((kind, number.value))
    return found


@pytest.mark.parametrize("step", DATAPATH_STEPS)
def test_sigkill_after_any_datapath_step_leaves_no_program_and_no_map(step):
    before = machine()
    lab = Lab(WHOLE, fault={"after": step, "kind": "hold"}).start()
    held = held_objects(lab.keeper.record.pid)
    assert held & existing_objects()
    os.kill(lab.keeper.record.pid, signal.SIGKILL)
    lab.close()
    # The kernel takes rings of programs and tail-call maps apart in deferred work.
    eventually(
        lambda: not held & existing_objects(),
        within_s=30,
        every_s=0.1,
        what="programs and maps are gone",
    )
    eventually(lambda: as_before(before), what="the machine is as before")


@pytest.mark.parametrize("step", DATAPATH_STEPS)
def test_an_exception_after_any_datapath_step_leaves_nothing(step):
    before = machine()
    with pytest.raises(KernelError, match="provoked"):
        Lab(WHOLE, fault={"after": step, "kind": "raise"}).start()
    eventually(lambda: as_before(before), what="the machine is as before")


def killed_while(lab):
    """Kill a lab's keeper and wait until nothing of the lab is left."""
    record = lab.keeper.record
    namespaces, held = held_namespaces(record.pid), held_objects(record.pid)
    os.kill(record.pid, signal.SIGKILL)
    eventually(lambda: not in_use(namespaces), within_s=10, what="the namespaces are gone")
    eventually(lambda: not held & existing_objects(), within_s=30, what="programs are gone")


def test_a_killed_keeper_takes_a_live_tracer_with_it():
    before = machine()
    lab = Lab(WHOLE).start()
    with pytest.raises(LabError), lab.trace():
        lab.pod("client").ping(lab.node("alpha"))
        killed_while(lab)
    eventually(lambda: as_before(before), what="the machine is as before")
    lab.stop()


def test_a_killed_keeper_leaves_nothing_in_a_live_notebook():
    client = pytest.importorskip("jupyter_client", reason="needs the notebook extra")
    before = machine()
    root = Path(__file__).resolve().parents[2]
    code = (
        "from lab.runtime import open_lab; from topologies.single_node import topology\n"
        "lab = open_lab(topology, name='in-notebook'); lab.pod('client').ping(lab.pod('server'))\n"
        "tracing = lab.trace(); tracing.__enter__()"
    )
    manager, kernel = client.manager.start_new_kernel(
        cwd=str(root), env={**os.environ, "PYTHONPATH": str(root)}
    )
    try:
        reply = kernel.execute_interactive(code, timeout=60)
        assert reply["content"]["status"] == "ok", reply["content"]
        killed_while(Lab.attach("in-notebook"))
        eventually(lambda: as_before(before), what="the machine is as before")
    finally:
        kernel.stop_channels()
        manager.shutdown_kernel(now=True)


def test_strangers_objects_are_untouched(tmp_path):
    stranger = Path("/sys/fs/cgroup/unified/lab-someone-1-1x")
    stranger.mkdir()
    try:
        subprocess.run(["ip", "netns", "add", "lab-stranger"], check=True)
        lab = Lab(BARE).start()
        os.kill(lab.keeper.record.pid, signal.SIGKILL)
        lab.close()
        registry.sweep()
        names = subprocess.run(["ip", "netns"], capture_output=True, text=True).stdout
        assert "lab-stranger" in names
        assert stranger.is_dir()
    finally:
        subprocess.run(["ip", "netns", "del", "lab-stranger"], check=True)
        stranger.rmdir()


def test_two_labs_of_the_same_topology_run_side_by_side():
    with Lab(BARE) as one, Lab(BARE) as two:
        assert one.name != two.name
        assert one.node("alpha").ping(one.node("beta")).ok
        assert two.node("alpha").ping(two.node("beta")).ok


def test_a_second_lab_of_the_same_name_is_refused():
    with Lab(BARE, name="twice"), pytest.raises(InputError, match="already up"):
        Lab(BARE, name="twice").start()


def test_a_request_that_the_keeper_stumbles_over_does_not_end_the_lab():
    with Lab(BARE) as lab:
        with pytest.raises(LabError, match="KeyError: 'target'"):
            lab.keeper.ask(op="enter")
        assert lab.pod("client").run(["hostname"]).returncode == 0


def test_a_command_inside_a_node_sees_that_node():
    with Lab(BARE) as lab:
        done = lab.node("beta").run(["ip", "-br", "addr", "show", "cilium_host"], check=True)
    assert "10.0.2.1/32" in done.stdout


def test_ip_netns_knows_the_names_inside_the_lab_only():
    with Lab(BARE) as lab:
        inside = lab.node("alpha").run(["ip", "netns"], check=True).stdout.split()
        outside = subprocess.run(["ip", "netns"], capture_output=True, text=True).stdout
    assert {"alpha", "beta", "client", "server", "underlay", "world"} <= set(inside)
    assert "alpha" not in outside
