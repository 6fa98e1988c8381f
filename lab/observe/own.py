"""A user's own probe, from outside: read its file, start it in a lab, take what it wrote."""

from __future__ import annotations

import ast
import importlib.util
import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab import codec
from lab.errors import InputError, UnsupportedError
from lab.kernel import probe as abilities
from lab.runtime.service import Service
from lab.trace.own import At, OwnEvent, Probe

if TYPE_CHECKING:
    from lab.runtime.live import Lab

SERVICE = "lab.observe.own_service"
_AT = {at.word: at for at in At}


def load_probe(path: Path | str) -> Probe:
    """Return the ``probe`` of a Python file; complaints about its C text will name that file.

    Raises:
        InputError: no such file, or it raises, or it holds no probe.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"{path}: no such file", hint="give a Python file with a `probe` in it")
    spec = importlib.util.spec_from_file_location(f"lab_probe_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise InputError(f"{path}: not a Python file", hint="name a file that ends in .py")
    # the file says `from lab import ...`, wherever the program was started
    root = str(Path(__file__).resolve().parents[2])
    if root not in sys.path:
        sys.path.append(root)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except InputError:
        raise
    # a stranger's file may raise anything
    except (Exception, SystemExit) as error:
        raise InputError(
            f"{path}: {type(error).__name__}: {error}", hint="run it with python to see where"
        ) from error
    found = getattr(module, "probe", None)
    if not isinstance(found, Probe):
        raise InputError(
            f"{path}: it defines no `probe = Probe(...)`", hint="see docs/socket_queue_probe.py"
        )
    return replace(found, name=str(path), first_line=_line_of(found.text, file))


def _line_of(text: str, file: Path) -> int:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Constant) and node.value == text:
            return node.lineno
    return 1


class OwnProbe(Service):
    """A running probe of the user's own; ends with `close`, with the lab, or with this process.

    Args:
        lab: must be up.
        probe: what to run.

    Attributes:
        probe: the same.
        events: everything it has written so far.
        lost: events that found a buffer full.
        note: what is to be known of its headers, empty if they are the running kernel's own.

    Raises:
        UnsupportedError: this kernel has no such hooks.
        PrerequisiteError: bcc or kernel headers are not installed.
        BuildError: the text does not compile.
        InputError: a place, device, function or tracepoint that does not exist.
        LabError: the kernel refused it otherwise.
    """

    def __init__(self, lab: Lab, probe: Probe) -> None:
        _require(probe)
        self.probe = probe
        self.events: list[OwnEvent] = []
        self.lost = 0
        self._lab = lab
        self._connection: socket.socket = lab.keeper.spawn(SERVICE, "", probe=codec.encode(probe))
        try:
            answer = self._receive()
        # Ctrl-C as well: as long as the connection lives, so does the probe
        except BaseException:
            self._connection.close()
            raise
        self._buffers: dict[str, Any] = answer["buffers"]
        headers = answer["headers"]
        self.note = (
            ""
            if headers["fit"]
            else f"{probe.name} was compiled against the headers of {headers['release']}: "
            "fields of inner kernel structures may lie elsewhere here"
        )

    def take(self) -> int:
        """Fetch what was written since the last call; return how many events that were."""
        answer = self._ask(op="take")
        self.lost = answer["lost"]
        self.events += (self._event(**row) for row in answer["events"])
        return len(answer["events"])

    def _event(self, buffer: str, cpu: int, values: list[list[Any]]) -> OwnEvent:
        known = {name: value for name, value in values}
        if not isinstance(known.get("ns"), int) or not known["ns"]:
            raise InputError(
                f"{self.probe.name}: an event of {buffer} says no time",
                hint="begin its structure with `u64 ns;` and set it to bpf_ktime_get_ns()",
            )
        source = self._buffers[buffer]
        return OwnEvent(
            hook=buffer,
            at=_AT[source["at"]],
            function=source["function"],
            target=source["target"],
            ns=known["ns"],
            cpu=cpu,
            skb=known.get("skb", 0),
            ifindex=known.get("ifindex", 0),
            places=tuple((inode, ifindex) for inode, ifindex in source["places"]),
            values=tuple((name, value) for name, value in values if name not in _JOINING),
            object=f"prog {source['number']}" if source["number"] else "",
        )

    @property
    def buffers(self) -> frozenset[str]:
        """Names of its buffers, which its lines of a trace have as their hooks."""
        return frozenset(self._buffers)

    @property
    def _title(self) -> str:
        return self.probe.name


_JOINING = frozenset({"ns", "skb", "ifindex"})
"""Fields that say which packet an event is about."""


def _require(probe: Probe) -> None:
    for one in probe.attach:
        if one.at.needs:
            found = abilities.ability(one.at.needs)
            if found.answer is not abilities.Answer.YES:
                raise UnsupportedError(
                    f"{one}: this kernel has no {found.subject.title} ({found.reason})",
                    hint="the same on Debian's kernel: ./lab.sh vm -- ./lab.sh trace --topology "
                    f"FILE FROM TO --probe {probe.name}",
                )
