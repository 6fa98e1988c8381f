"""Where the time of loading one object goes: parsing, maps, verifier per program.

Run as root: ``python tests/bench/load.py [OBJECT ...]``. Nothing is attached or pinned.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from lab.datapath.build import build_objects
from lab.datapath.objects import maps_of, program_type
from lab.kernel.bpf import Loaded, load_object
from lab.kernel.btf import Elf
from lab.layouts.attach import CALLS, OBJECTS, POLICY

ROUNDS = 7


def median_ms(action: Callable[[], object]) -> float:
    """Median of a few runs, in milliseconds of CPU; owners are closed outside the measured time.

    CPU time of the thread, kernel included: what else the machine does is not in it.
    """
    times = []
    for _ in range(ROUNDS):
        start = time.thread_time()
        result = action()
        times.append((time.thread_time() - start) * 1e3)
        if isinstance(result, Loaded):
            result.close()
    return statistics.median(times)


def report(name: str, path: Path) -> None:
    """Print the figures of one object."""
    kind = program_type(path)
    with load_object(path, default_type=kind, only=()) as maps:
        shared = {n: m for n, m in maps.maps.items() if n in maps_of(path)}
        shared = {n: m for n, m in shared.items() if n not in (CALLS, POLICY)}

        def load(only: tuple[str, ...] | None) -> Loaded:
            return load_object(path, default_type=kind, reuse=shared, only=only)

        parse = median_ms(lambda: Elf(path.read_bytes()).btf)
        empty = median_ms(lambda: load(()))
        whole = median_ms(lambda: load(None))
        with load(None) as loaded:
            infos = {program: owner.info() for program, owner in loaded.programs.items()}
        print(
            f"{name}: {whole:.2f} ms of CPU for {len(infos)} programs; parse once {parse:.2f} ms, ",
            end="",
        )
        print(f"open, BTF and private maps {empty:.2f} ms")
        for program, info in sorted(infos.items(), key=lambda item: -item[1].verified_insns):
            cost = median_ms(lambda program=program: load((program,))) - empty
            print(
                f"  {program:30} {cost:7.2f} ms  {info.verified_insns:7} insns verified"
                f"  {info.xlated_bytes // 8:6} loaded  {info.jited_bytes:6} B machine code"
            )


def main() -> None:
    """Parse the command line and report each object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("objects", nargs="*", default=list(OBJECTS))
    names = parser.parse_args().objects
    for name, path in build_objects(names).items():
        report(name, path)


if __name__ == "__main__":
    main()
