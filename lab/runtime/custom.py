"""Custom calls: a program of the user's that runs after a pod's own have decided.

It finds their verdict and the other side's identity in ``skb->cb[4]`` (``bpf/lib/custom.h``) and
has the last word. It stays until another takes its place or the pod goes; nobody needs to hold it.
"""

from __future__ import annotations

from pathlib import Path

from lab.errors import InputError
from lab.kernel.bpfmap import BpfMap
from lab.names import did_you_mean
from lab.runtime.live import Lab

SLOTS = {"ingress": 0, "egress": 1}
"""What the pod receives, and what it sends."""


def put_custom_call(
    lab: Lab, pod: str, direction: str, source: Path | None, program: str = ""
) -> str:
    """Let a program run after those of a pod; return its name, empty if the slot was emptied.

    Args:
        lab: with ``Options(custom_calls=True)``.
        pod: name of the pod.
        direction: ``ingress`` (what it receives) or ``egress`` (what it sends).
        source: C file, compiled with the datapath's headers, or an object; None empties the slot.
        program: which of the file's functions; not needed if it has one.

    Raises:
        InputError: the lab has no custom calls, or no such direction or program.
        BuildError: the source does not compile.
        VerifierError: the verifier refuses it.
    """
    if not lab.topology.options.custom_calls:
        raise InputError(
            f"lab {lab.name!r} has no custom calls", hint="build it with --set custom_calls=true"
        )
    if direction not in SLOTS:
        raise InputError(f"direction {direction!r}", hint=did_you_mean(direction, SLOTS))
    facts = lab.pod(pod).facts
    pin = lab.node(facts.node).pin("tc/globals", f"cilium_calls_custom_{facts.endpoint_id:05d}")
    slot = SLOTS[direction].to_bytes(4, "little")
    with BpfMap.from_pin(Path(pin)) as calls:
        if source is None:
            calls.delete(slot)
            return ""
        return _put(calls, slot, source, program)


def _put(calls: BpfMap, slot: bytes, source: Path, program: str) -> str:
    from lab.datapath.build import SOURCES, build
    from lab.kernel.bpf import ProgramType, load_object

    path = build([source], root=SOURCES)[0] if source.suffix == ".c" else source
    # its slot keeps the program when the block lets go of it
    with load_object(path, default_type=ProgramType.SCHED_CLS) as loaded:
        known = sorted(loaded.programs)
        name = program or (known[0] if len(known) == 1 else "")
        if name not in loaded.programs:
            raise InputError(
                f"{source.name}: say which program" if not name else f"no program {name!r}",
                hint="it has " + ", ".join(known),
            )
        calls.update(slot, loaded.programs[name].fd.to_bytes(4, "little"))
    return name
