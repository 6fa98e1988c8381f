"""What linters cannot say: layers, containment of third-party packages, sizes, docstrings."""

import ast
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAB = ROOT / "lab"

LAYERS = {
    0: {"codec", "model", "layouts", "policy", "names", "waiting", "errors", "trace"},
    1: {"plan", "packets"},
    2: {"kernel"},
    3: {"agent", "datapath", "engines"},
    4: {"runtime", "traffic", "wire", "observe"},
    5: {"k8s"},
    6: {"scenarios", "report", "plot"},
    7: {"cli", "__main__", "notebook", "testing", "__init__"},
}
LAYER_OF = {name: row for row, names in LAYERS.items() for name in names}

CONTAINED = {
    "pyroute2": ("lab/kernel",),
    "scapy": ("lab/packets",),
    "mininet": ("lab/engines",),
    "bcc": ("lab/kernel",),
    "ctypes": ("lab/kernel",),
    "subprocess": ("lab/kernel/process", "lab/runtime/start"),
    "matplotlib": ("lab/plot",),
    "typer": ("lab/cli",),
    "rich": ("lab/cli", "lab/report"),
    "pytest": ("lab/testing",),
    "IPython": ("lab/notebook",),
    "yaml": ("lab/k8s",),
}

MODULES = sorted(LAB.rglob("*.py"))


def part_of(path: Path) -> str:
    relative = path.relative_to(LAB)
    return relative.parts[0].removesuffix(".py")


def imported_modules(tree: ast.AST) -> list[str]:
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.append(node.module)
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def code_lines(path: Path) -> int:
    source = path.read_text()
    skipped: set[int] = set()
    with tokenize.open(path) as handle:
        for token in tokenize.generate_tokens(handle.readline):
            if token.type == tokenize.COMMENT and token.line.lstrip().startswith("#"):
                skipped.add(token.start[0])
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(
            node
        ):
            skipped.update(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    return sum(
        1 for n, line in enumerate(source.splitlines(), 1) if line.strip() and n not in skipped
    )


def ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", MODULES, ids=ids)
def test_module_belongs_to_a_layer(path: Path) -> None:
    assert part_of(path) in LAYER_OF, "add the part to a row of the architecture, or move the file"


@pytest.mark.parametrize("path", MODULES, ids=ids)
def test_imports_only_own_row_or_below(path: Path) -> None:
    own = LAYER_OF[part_of(path)]
    above = {
        name
        for name in imported_modules(ast.parse(path.read_text()))
        if name.startswith("lab.")
        and (part := name.split(".")[1]) in LAYER_OF
        and LAYER_OF[part] > own
    }
    assert not above, f"layer {own} imports from above: {sorted(above)}"


@pytest.mark.parametrize("path", MODULES, ids=ids)
def test_third_party_is_contained(path: Path) -> None:
    where = str(path.relative_to(ROOT))
    strangers = {
        name
        for name in imported_modules(ast.parse(path.read_text()))
        if (top := name.split(".")[0]) in CONTAINED and not where.startswith(CONTAINED[top])
    }
    assert not strangers


@pytest.mark.parametrize("path", MODULES, ids=ids)
def test_module_is_short(path: Path) -> None:
    assert code_lines(path) <= 400


@pytest.mark.parametrize("path", MODULES, ids=ids)
def test_functions_are_short(path: Path) -> None:
    long = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            if ast.get_docstring(node):
                text = node.body[0]
                lines -= (text.end_lineno or 0) - text.lineno + 1
            if lines > 50:
                long.append(f"{node.name}: {lines}")
    assert not long


@pytest.mark.parametrize("path", MODULES, ids=ids)
def test_public_names_have_docstrings(path: Path) -> None:
    tree = ast.parse(path.read_text())
    missing = [] if ast.get_docstring(tree) else ["module"]
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            if not ast.get_docstring(node):
                missing.append(node.name)
            if isinstance(node, ast.ClassDef):
                missing += [
                    f"{node.name}.{member.name}"
                    for member in node.body
                    if isinstance(member, ast.FunctionDef)
                    and not member.name.startswith("_")
                    and not ast.get_docstring(member)
                ]
    assert not missing


FORBIDDEN = {
    "shell=True": re.compile(r"shell\s*=\s*True"),
    "os.system": re.compile(r"\bos\.system\("),
    "bare except": re.compile(r"^\s*except\s*:", re.M),
    "star import": re.compile(r"^from .* import \*", re.M),
}


@pytest.mark.parametrize("path", MODULES, ids=ids)
@pytest.mark.parametrize("what", FORBIDDEN)
def test_forbidden_constructs_are_absent(path: Path, what: str) -> None:
    assert not FORBIDDEN[what].search(path.read_text())


SLEEPERS = [
    path
    for folder in ("lab", "tests", "scenarios", "notebooks")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if path != LAB / "waiting.py" and path != Path(__file__)
]


@pytest.mark.parametrize("path", SLEEPERS, ids=ids)
def test_nothing_sleeps_but_waiting(path: Path) -> None:
    assert not re.search(r"\btime\.sleep\(|\bsleep\(\d", path.read_text())


TOPOLOGIES = sorted((ROOT / "topologies").glob("*.py"))
SCENARIOS = sorted((ROOT / "scenarios").rglob("*.py"))


@pytest.mark.parametrize("path", TOPOLOGIES, ids=ids)
def test_topology_file_is_small(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 40


@pytest.mark.parametrize("path", SCENARIOS, ids=ids)
def test_scenario_file_is_small(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 60


@pytest.mark.parametrize("path", SCENARIOS, ids=ids)
def test_scenario_uses_the_public_interface_only(path: Path) -> None:
    inner = {
        name
        for name in imported_modules(ast.parse(path.read_text()))
        if name.startswith(("lab.kernel", "lab.datapath", "lab.runtime", "lab.agent"))
    }
    assert not inner
