"""Topology and scenario files: Python read with clear errors."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from lab.errors import InputError, LabError, TopologyError
from lab.model import Topology
from lab.names import did_you_mean
from lab.scenarios.run import Scenario

HERE = Path(__file__).resolve().parents[2]


def load_topology(path: Path | str) -> Topology:
    """Return the ``topology`` of a Python file.

    Args:
        path: the file, or the name of one below ``topologies/``.

    Raises:
        InputError: no such file, or it raises, or it holds no topology.
        TopologyError: what it describes cannot be built.
    """
    module = _load(_find(Path(path), "topologies"))
    topology = getattr(module, "topology", None)
    if not isinstance(topology, Topology):
        raise TopologyError(
            f"{path}: it defines no `topology = Topology(...)`",
            hint="see topologies/two_nodes.py",
        )
    return topology


def load_scenarios(paths: Iterable[Path | str]) -> tuple[Scenario, ...]:
    """Return the scenarios of files and folders, in order, each once.

    Raises:
        InputError: no such file, or one raises, or one holds no scenario.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        found = _find(path, "scenarios")
        files += sorted(found.rglob("*.py")) if found.is_dir() else [found]
    scenarios: list[Scenario] = []
    for file in dict.fromkeys(files):
        here = [item for item in vars(_load(file)).values() if isinstance(item, Scenario)]
        if not here:
            raise InputError(
                f"{file}: it holds no scenario",
                hint="decorate a function with @scenario(topology)",
            )
        scenarios += here
    if not scenarios:
        raise InputError("no scenario was found", hint="name files or folders of scenarios")
    return tuple(scenarios)


def _find(path: Path, folder: str) -> Path:
    # where the user is, then where the lab's own files lie
    candidates = [path, Path(folder, f"{path}.py"), HERE / path, HERE / folder / f"{path}.py"]
    for candidate in candidates:
        if candidate.exists():
            return candidate.resolve()
    known = [file.name for file in (HERE / folder).glob("*.py")]
    raise InputError(f"{path}: no such file", hint=did_you_mean(path.name, known))


def _load(path: Path) -> ModuleType:
    if path.is_dir() or path.suffix != ".py":
        raise InputError(f"{path}: not a Python file", hint="name a file that ends in .py")
    # Scenario files import their topology as `topologies.NAME`, from the tree they live in.
    for root in (HERE, path.parent, path.parent.parent):
        if str(root) not in sys.path:
            # behind the others: a user's file named like a module of Python hides nothing
            sys.path.append(str(root))
    spec = importlib.util.spec_from_file_location(f"lab_file_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # inspect.getmodule() (a scenario's docstring) and dataclasses look for it there
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except LabError as error:
        raise type(error)(
            f"{path}:{_line(error, path)}: {error.message}", hint=error.hint
        ) from None
    except Exception as error:  # noqa: BLE001 (a user's file may raise anything)
        # The file is the user's: whatever it raises is told with its place.
        where = error.lineno if isinstance(error, SyntaxError) else _line(error, path)
        raise InputError(
            f"{path}:{where}: {type(error).__name__}: {error}", hint="correct the file"
        ) from None
    return module


def _line(error: BaseException, path: Path) -> int:
    frames = traceback.extract_tb(error.__traceback__)
    return next((f.lineno or 0 for f in reversed(frames) if f.filename == str(path)), 0)
