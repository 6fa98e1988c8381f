"""What this machine can do, found out by trying, never by version."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from lab.errors import InputError, PrerequisiteError, UnsupportedError
from lab.kernel import cgroup, process, vm
from lab.kernel.abilities import MACHINE, SUBJECTS, Need, Subject

BTF = Path("/sys/kernel/btf/vmlinux")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
STATUS = Path("/proc/self/status")
MODULES = Path("/sys/module")
_CHILD = "lab.kernel.probe_child"


class Answer(StrEnum):
    """Whether an ability is there; without root most cannot be tried."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Ability:
    """One answer.

    Attributes:
        subject: what was asked.
        answer: what came out.
        reason: why not, in the kernel's words; empty for yes.
    """

    subject: Subject
    answer: Answer
    reason: str

    @property
    def name(self) -> str:
        """The subject's name."""
        return self.subject.name


@cache
def abilities() -> tuple[Ability, ...]:
    """Try everything and return the answers, in the order of the table.

    Trying takes about 0.3 s. The kernel's answers are kept in the user's cache until the next
    boot, or until the capabilities or loaded modules change; programs are looked up every time.
    Nothing that was made for trying stays: it lives in namespaces of a child process.
    """
    tried = _kernel_reasons() if os.geteuid() == 0 else None
    found = []
    for subject in SUBJECTS:
        if subject in MACHINE and subject.name != "bpffs":
            reason = _machine_reason(subject.name)
            answer = Answer.NO if reason else Answer.YES
        elif tried is None:
            answer, reason = Answer.UNKNOWN, "only root can try"
        else:
            reason = tried.get(subject.name, "not tried")
            answer = Answer.NO if reason else Answer.YES
        found.append(Ability(subject, answer, reason))
    return tuple(found)


def ability(name: str) -> Ability:
    """Return one answer by the subject's name.

    Raises:
        InputError: there is no such ability.
    """
    for found in abilities():
        if found.name == name:
            return found
    raise InputError(
        f"no ability is called {name!r}", hint=f"known: {', '.join(s.name for s in SUBJECTS)}"
    )


def has(name: str) -> bool:
    """Tell whether an ability is known to be there.

    Raises:
        InputError: there is no such ability.
    """
    return ability(name).answer is Answer.YES


def may_probe_functions() -> bool:
    """Tell whether it is worth trying to put probes on the kernel's functions."""
    # the second kernel boots anew each time: to ask it everything costs more than to try
    return vm.inside() or has("fentry")


def require(name: str) -> None:
    """Return if an ability is there.

    Raises:
        UnsupportedError: it is not; the hint says what to do instead.
        InputError: there is no such ability.
    """
    found = ability(name)
    if found.answer is not Answer.YES:
        raise UnsupportedError(
            f"this kernel lacks {found.subject.title} ({found.reason})", hint=found.subject.without
        )


def missing_requirements() -> tuple[Ability, ...]:
    """Return the abilities without which no lab can run, and which are not known to be there."""
    return tuple(
        found
        for found in abilities()
        if found.subject.need is Need.REQUIRED and found.answer is not Answer.YES
    )


def _machine_reason(name: str) -> str:
    match name:
        case "root":
            return "" if os.geteuid() == 0 else f"user {os.geteuid()}"
        case "cgroup2":
            return _refusal(cgroup.unified_root)
        case "btf":
            return "" if os.access(BTF, os.R_OK) else f"{BTF} is not readable"
        case "kvm":
            return "" if vm.kvm_usable() else "no /dev/kvm that runs an ordinary kernel"
        case "second_kernel":
            return _refusal(vm.find_guest)
        case "mininet":
            return "" if find_spec("mininet") else "python3 module mininet is not there"
        case program:
            return "" if process.find(program) else "not installed"


def _refusal(ask: Callable[[], object]) -> str:
    try:
        ask()
    except PrerequisiteError as error:
        return error.message
    return ""


def _kernel_reasons() -> dict[str, str]:
    key, kept = _circumstances(), _kept_answers()
    try:
        stored = json.loads(kept.read_text())
        if stored["key"] == key:
            return dict(stored["reasons"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # nothing kept, or not by us: ask again
    reasons = _ask_kernel()
    with suppress(OSError):  # a read-only home: the next command asks again
        kept.parent.mkdir(parents=True, exist_ok=True)
        # renamed into place: another process may be reading it now
        draft = kept.with_suffix(f".{os.getpid()}")
        draft.write_text(json.dumps({"key": key, "reasons": reasons}))
        draft.replace(kept)
    return reasons


def _ask_kernel() -> dict[str, str]:
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *process.SBIN])
    # -P keeps the working directory off the module path, so it is given by name
    here = str(Path(__file__).resolve().parents[2])
    modules = os.pathsep.join([here, *filter(None, sys.path)])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": modules}
    done = process.run([sys.executable, "-P", "-m", _CHILD], env=environment)
    reasons: dict[str, str] = json.loads(done.stdout)
    return reasons


def _kept_answers() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path(os.environ.get("HOME", "/root"), ".cache")
    return Path(home) / "ebpf-datapath-lab" / "abilities.json"


def _circumstances() -> str:
    """Everything on which the answers depend: boot, capabilities, modules, programs, the probes."""
    parts = [
        platform.release(),
        BOOT_ID.read_text(),
        *(line for line in STATUS.read_text().splitlines() if line.startswith("CapEff")),
        *sorted(entry.name for entry in MODULES.iterdir()),
        *(process.find(program) or "" for program in ("ip", "nft", "iptables")),
        Path(__file__).with_name("probe_child.py").read_text(),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
