"""``lab graph`` of a lab that is up, and the files that ``lab trace`` writes."""

import pytest

from lab import Lab
from lab.cli.root import run
from topologies.two_nodes import topology

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def up():
    with Lab(topology) as lab:
        yield lab


def test_a_lab_that_is_up_is_drawn_by_its_name(up, capsys):
    assert run(["graph", up.name]) == 0
    assert "client  10.0.1.10  id 256" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "name", "holds"),
    [("--html", "t.html", b"cil_from_container"), ("--plot", "t.png", b"PNG"),
     ("--pcapng", "t.pcapng", b"labCOOKi")],
    ids=["page", "figure", "capture"],
)  # fmt: skip
def test_a_trace_is_written_as(up, tmp_path, option, name, holds):
    path = tmp_path / name
    assert run(["trace", f"{up.name}/client", "server", option, str(path)]) == 0
    assert holds in path.read_bytes()
