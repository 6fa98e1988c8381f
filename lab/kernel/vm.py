"""The second kernel: Debian's, booted by virtme-ng under qemu, sharing this machine's files.

The guest sees the host's file system read-only under the same paths; the repository, the Python
environment and the working directory are writable, so what a command writes there stays. What it
writes to ``/tmp``, ``/var`` or a home folder goes with it; ``/run``, bpffs, cgroups and network
are its own. Host changes made while it runs may not be seen inside (its 9p mounts cache, which
halves the start of a Python program).
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import re
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.errors import KernelError, PrerequisiteError
from lab.kernel import process

INSIDE = "LAB_IN_VM"
SCRATCH = ("etc", "home", "root", "tmp", "var")
"""Writable in the guest, but nothing written there stays."""
OUTBOX = Path("/run/lab-vm-outbox")
CONTROL = Path("/run/lab-vm")
BOOT = Path("/boot")
MODULES = Path("/lib/modules")
KVM = Path("/dev/kvm")
CPUINFO = Path("/proc/cpuinfo")
# all scenarios in one run did not end in 2048
MEMORY_MIB = 4096
# Debian builds these as modules; looked up by name (BTF, netlink) before anything loads them.
GUEST_MODULES = (
    "veth bridge vxlan geneve tun dummy 8021q ifb wireguard xfrm_user xfrm_interface esp4 "
    "esp6 nf_tables nft_chain_nat nft_ct nf_conntrack nf_conntrack_netlink iptable_mangle "
    "iptable_filter iptable_nat xt_TPROXY xt_socket xt_mark xt_bpf nft_tproxy nft_socket "
    "cls_bpf cls_u32 cls_matchall sch_ingress sch_netem sch_fq sch_fq_codel sch_tbf sch_htb "
    "act_mirred act_bpf tcp_bbr inet_diag tcp_diag udp_diag"
)
PASSED_ON = re.compile(r"^(LAB_.*|PYTEST_.*|CI|COLUMNS|HOME|LANG|LC_.*|NO_COLOR|PATH|TERM|USER)$")
_KVM_GET_API_VERSION, _KVM_CREATE_VM, _KVM_VERSION = 0xAE00, 0xAE01, 12
_CONTROL = "lab-vm-"
_9P = "version=9p2000.L,trans=virtio,access=any,msize=512000"

# Runs as the guest's root once, before the command. $1 is the folder shared with the host.
_BOOT_SCRIPT = """\
set -e
control=$1
mkdir -p /run/lab-vm-root
mount -t 9p -o ro,{options},cache=loose labroot /run/lab-vm-root
mount --rbind /run/lab-vm-root/usr /usr
modprobe -q overlay
for folder in {scratch}; do
    [ -d "/$folder" ] || continue
    mkdir -p "/run/lab-vm-over/$folder/new" "/run/lab-vm-over/$folder/work"
    mount -t overlay -o "lowerdir=/run/lab-vm-root/$folder,upperdir=/run/lab-vm-over/$folder/new,\
workdir=/run/lab-vm-over/$folder/work" over "/$folder"
done
{shares}
mountpoint -q /sys/fs/cgroup || mount -t cgroup2 cgroup2 /sys/fs/cgroup
mountpoint -q /sys/fs/bpf || mount -t bpf bpffs /sys/fs/bpf
modprobe -qab {modules} || true
ip link set lo up
cd {cwd}
: >"$control/started"
set +e
env -i {environment} {command}
code=$?
sync
echo "$code" >"$control/code"
"""


@dataclass(frozen=True, slots=True)
class Guest:
    """The kernel that will be booted.

    Attributes:
        image: the kernel image in /boot.
        release: its release, which names its folder in /lib/modules.
        kvm: whether the processor runs it itself; if not, software emulation does (about ten
            times slower).
    """

    image: Path
    release: str
    kvm: bool


@dataclass(frozen=True, slots=True)
class Share:
    """A host folder that appears in the guest, writable; under the same path unless told."""

    tag: str
    path: Path
    inside: Path | None = None


def inside() -> bool:
    """Tell whether this process already runs in the second kernel."""
    return bool(os.environ.get(INSIDE))


def find_guest() -> Guest:
    """Return the newest installed kernel that has its modules.

    Raises:
        PrerequisiteError: no kernel, qemu, busybox or virtme-ng here; the hint says what to
            install.
    """
    images = sorted(
        (
            path
            for path in BOOT.glob("vmlinuz-*")
            if (MODULES / path.name.removeprefix("vmlinuz-")).is_dir()
        ),
        key=lambda path: [int(part) for part in re.findall(r"\d+", path.name)],
    )
    if not images:
        raise PrerequisiteError(
            f"no kernel to boot: {BOOT} has no vmlinuz-* with modules in {MODULES}",
            hint="apt install linux-image-amd64, or let `sudo ./lab.sh vm` do it",
        )
    process.require("qemu-system-x86_64")
    process.require("busybox")
    process.require("file")
    _virtme()
    image = images[-1]
    return Guest(image, image.name.removeprefix("vmlinuz-"), kvm_usable())


def kvm_usable() -> bool:
    """Tell whether KVM can run an ordinary kernel for this user.

    /dev/kvm may exist, and even make machines, on processors without (nested) virtualisation,
    for guests adapted to it: Debian's kernel hangs there.
    """
    if not re.search(r"^flags\s*:.*\b(vmx|svm)\b", CPUINFO.read_text(), re.M):
        return False
    try:
        with KVM.open("r+b", buffering=0) as device:
            # 12 is the only version there is; anything else is not KVM (the kernel's api.rst says
            # refuse)
            if fcntl.ioctl(device, _KVM_GET_API_VERSION) != _KVM_VERSION:
                return False
            os.close(fcntl.ioctl(device, _KVM_CREATE_VM, 0))
    except OSError:
        return False
    return True


def require_root() -> None:
    """Return for root: the guest lives in a PID namespace that ends with its caller.

    Raises:
        PrerequisiteError: not root.
    """
    if os.geteuid():
        raise PrerequisiteError(
            "booting the second kernel needs root", hint="sudo ./lab.sh vm -- COMMAND"
        )


def run_inside(
    argv: Sequence[str],
    *,
    guest: Guest,
    cwd: Path,
    repository: Path,
    on_wait: Callable[[float, bool], None],
    memory_mib: int = MEMORY_MIB,
    outbox: Path | None = None,
    writable: Sequence[Path] = (),
) -> int:
    """Boot the guest, run one command as its root and return the command's exit code.

    The command's output appears on this process's standard output and error as it is written; its
    standard input is empty. When this process ends, in whatever way, the guest has gone too.

    Args:
        argv: the command, looked up in the guest (same paths, same PATH).
        guest: what to boot.
        cwd: the command's working directory, writable for it.
        repository: the folder that is writable for it besides.
        on_wait: called several times a second with the seconds since the start and whether the
            command is running yet.
        memory_mib: the guest's memory.
        writable: more folders that are writable for it.
        outbox: a folder that appears inside as OUTBOX, writable; for results.

    Raises:
        PrerequisiteError: not root.
        KernelError: the guest ended without running the command to its end.
        KeyboardInterrupt: Ctrl-C; qemu has been stopped.
    """
    require_root()
    shares = list(shared_folders(cwd, repository, Path(sys.prefix), *writable))
    if outbox:
        shares.append(Share("outbox", outbox, OUTBOX))
    _sweep()
    with tempfile.TemporaryDirectory(prefix=f"{_CONTROL}{os.getpid()}-") as folder:
        control = Path(folder)
        (control / "boot.sh").write_text(boot_script(argv, cwd, shares))
        command = [*_dies_with_us(), *_virtme_command(guest, shares, control, memory_mib)]
        started = time.monotonic()

        def tick() -> None:
            on_wait(time.monotonic() - started, (control / "started").exists())

        # virtme-run looks for helpers of its own next to itself and in the system's folders.
        path = os.pathsep.join([str(_virtme().parent), os.environ.get("PATH", ""), *process.SBIN])
        environment = {**os.environ, "PATH": path, "TMPDIR": folder, **_without_blanks(control)}
        process.relay(command, tick=tick, env=environment)
        try:
            return int((control / "code").read_text())
        except (FileNotFoundError, ValueError):
            raise KernelError(
                f"the virtual machine ({guest.release}) ended before the command did",
                hint="its last console lines are above; `lab vm -- true` tries the boot alone",
            ) from None


def _sweep() -> None:
    """Remove the folders of runs that were killed."""
    # the folder's name carries its owner's pid, so runs under way are left alone
    for folder in Path(tempfile.gettempdir()).glob(f"{_CONTROL}*"):
        owner = folder.name.removeprefix(_CONTROL).partition("-")[0]
        if owner.isdecimal() and not Path("/proc", owner).exists():
            shutil.rmtree(folder, ignore_errors=True)


def shared_folders(
    cwd: Path, repository: Path, environment: Path, *others: Path
) -> tuple[Share, ...]:
    """Return what is writable inside: these folders, none below another, never the root.

    An environment below /usr needs no share of its own.
    """
    wanted = {path.resolve() for path in (cwd, repository, *others)}
    if not environment.resolve().is_relative_to("/usr"):
        wanted.add(environment.resolve())
    wanted.discard(Path("/"))
    top = sorted(p for p in wanted if not any(p != q and p.is_relative_to(q) for q in wanted))
    return tuple(Share(f"lab{number}", path) for number, path in enumerate(top))


def boot_script(argv: Sequence[str], cwd: Path, shares: Sequence[Share]) -> str:
    """Return the shell text that the guest's root runs: mounts, modules, then the command."""
    mounts = [
        f"mkdir -p {shlex.quote(str(share.inside or share.path))}\n"
        f"mount -t 9p -o rw,{_9P},cache=loose {share.tag} "
        + shlex.quote(str(share.inside or share.path))
        for share in shares
    ]
    passed = {name: value for name, value in os.environ.items() if PASSED_ON.match(name)}
    environment = {**passed, INSIDE: "1"}
    return _BOOT_SCRIPT.format(
        options=_9P,
        scratch=" ".join(SCRATCH),
        shares="\n".join(mounts),
        modules=GUEST_MODULES,
        cwd=shlex.quote(str(cwd)),
        environment=shlex.join(f"{name}={value}" for name, value in environment.items()),
        command=shlex.join(argv),
    )


def _virtme() -> Path:
    beside = Path(sys.executable).parent / "virtme-run"
    found = str(beside) if beside.exists() else process.find("virtme-run")
    if found is None:
        raise PrerequisiteError(
            "virtme-ng is not installed", hint="pip install virtme-ng, or let ./lab.sh do it"
        )
    return Path(found)


def _without_blanks(control: Path) -> dict[str, str]:
    # virtme-run puts the path of its own init on the kernel's command line, which ends words at
    # blanks and knows no quotes: where the environment's path has some, it is reached by a link.
    found = importlib.util.find_spec("virtme")
    if found is None or not found.submodule_search_locations:
        return {}
    packages = Path(found.submodule_search_locations[0]).parent
    if not re.search(r"\s", str(packages)):
        return {}
    link = control / "packages"
    link.symlink_to(packages)
    return {"PYTHONPATH": os.pathsep.join([str(link), os.environ.get("PYTHONPATH", "")])}


def _dies_with_us() -> list[str]:
    # The kernel kills unshare when we end, unshare's init when unshare ends, and with the init of
    # its PID namespace everything below: virtme-run and qemu.
    unshare = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    return ["setpriv", "--pdeathsig", "KILL", *unshare]


def _virtme_command(
    guest: Guest, shares: Sequence[Share], control: Path, memory_mib: int
) -> list[str]:
    exports = [("labroot", Path("/"), True), ("labcontrol", control, False)]
    exports += [(share.tag, share.path, False) for share in shares]
    # Everything fits into the kernel's command line only as long as this stays a line.
    first = f"mkdir -p {CONTROL}; mount -t 9p -o {_9P} labcontrol {CONTROL} && sh {CONTROL}/boot.sh"
    return [
        sys.executable,
        str(_virtme()),
        *("--kimg", str(guest.image), "--mods", "auto"),
        *("--memory", f"{memory_mib}M", "--cpus", str(min(os.cpu_count() or 1, 4))),
        *("--force-9p", "--name", "lab-vm"),
        *([] if guest.kvm else ["--disable-kvm"]),
        *(
            f"-q={word}"
            for tag, path, read_only in exports
            for word in _export(tag, path, read_only)
        ),
        *("--script-sh", f"{first} {CONTROL}"),
    ]


def _export(tag: str, path: Path, read_only: bool) -> tuple[str, ...]:
    # qemu's option syntax doubles a comma that is part of a value.
    quoted = str(path).replace(",", ",,")
    mode = ",readonly=on" if read_only else ""
    return (
        "-fsdev",
        f"local,id={tag},path={quoted},security_model=none,multidevs=remap{mode}",
        "-device",
        f"virtio-9p-pci,fsdev={tag},mount_tag={tag}",
    )
