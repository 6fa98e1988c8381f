"""The second witness inside a lab: a child of the keeper that probes kernel functions."""

from __future__ import annotations

import socket
from dataclasses import replace
from typing import TYPE_CHECKING

from lab.errors import KernelError, UnsupportedError, VerifierError
from lab.kernel.bpf import Loaded, Program, ProgramType
from lab.kernel.bpfattach import Link, attach_kprobe
from lab.kernel.functions import version, why_not
from lab.kernel.lanes import Lanes
from lab.observe.collector import Collector, answer_requests, attach_function, load_probes
from lab.observe.functions import ESP_FUNCTIONS, FUNCTIONS, Function
from lab.observe.ipsec import has_esp
from lab.observe.programs import Probe, Where
from lab.observe.records import RECORD_BYTES, Kind

if TYPE_CHECKING:
    from lab.runtime.keeper import Context


class FunctionCollector(Collector):
    """Owner of the function probes of one tracing caller.

    Each probe is optional: what cannot be probed here is reported with its reason.
    """

    def start(self) -> None:
        """Load and attach every probe that this kernel takes; nothing records yet.

        Raises:
            UnsupportedError: it takes none.
        """
        path = self.context.arguments["object"]
        # a kernel that cannot encrypt misses nothing
        asked = [one for one in FUNCTIONS if has_esp() or one not in ESP_FUNCTIONS]
        usable = [found for function in asked if (found := self._usable(function))]
        loaded = self._load(path, self.lanes(RECORD_BYTES), usable)
        self.watch(loaded, path)
        self.probes = tuple(probe for function in usable for probe in self._attached(function))
        if not self.probes:
            raise UnsupportedError(
                f"no kernel function can be probed: {self.refused[0]}", hint="lab vm -- ..."
            )
        self.lost_before = self.lost()

    def _usable(self, function: Function) -> Function | None:
        """The function with the program that fits what the compiler left of it."""
        if not (reason := why_not(function.name)):
            return function
        if function.version and version(function.name):
            return replace(function, program=function.version)
        self.refused.append(f"{function.name}: {reason}")
        return None

    def _load(self, path: str, lanes: Lanes, usable: list[Function]) -> Loaded:
        """Load all; a program that the verifier refuses is left out and the others tried again."""
        while True:
            names = [n for f in usable for n in (f.program, f.over) if n]
            try:
                return load_probes(path, lanes, {}, names, ProgramType.TRACING)
            except VerifierError as error:
                refused = [f for f in usable if f.program in error.message]
                if not refused:
                    raise
                self.refused.append(f"{refused[0].name}: refused by the verifier")
                # the first refusal ends the loading: who else is refused shows in the next round
                usable.remove(refused[0])
            except KernelError as error:
                raise UnsupportedError(
                    f"this kernel lets no function be probed: {error.message}",
                    hint="lab vm -- lab trace --topology FILE FROM TO",
                ) from error

    def _attached(self, function: Function) -> list[Probe]:
        probes = []
        for name in filter(None, (function.program, function.over)):
            try:
                link = _attach(self.loaded.programs[name], function)
            except KernelError as error:
                # what loads may still not attach; the others are worth having all the same
                self.refused.append(f"{function.name}: {error.message}")
                continue
            self.stack.callback(link.close)
            self.links.setdefault(name, []).append(link)
            probes.append(Probe(name, Kind.FUNCTION, Where.FENTRY, function.name, function.hook))
        return probes


def _attach(program: Program, function: Function) -> Link:
    if program.section == "kprobe":
        return attach_kprobe(program, version(function.name))
    return attach_function(program)


def serve(connection: socket.socket, context: Context) -> None:
    """Watch functions for one caller until it closes the connection.

    Raises:
        Closed: the caller is gone; the keeper ends the process.
        LabError: the kernel lets no function be probed.
    """
    answer_requests(FunctionCollector(context), connection)
