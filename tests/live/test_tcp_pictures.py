"""``lab run --pictures``: what is left in the folder, and a script of the user's that is wrong."""

import json

import pytest

from lab.cli.root import run

pytestmark = pytest.mark.live


def test_pictures_text_and_capture_are_left_in_the_folder(tmp_path, capsys) -> None:
    folder = tmp_path / "pictures"
    assert run(["run", "scenarios/tcp/handshake.py", "--pictures", str(folder), "-o", "json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["passed"]
    assert sorted(path.name for path in folder.iterdir()) == [
        "handshake-sequence.png",
        "handshake-sequence.svg",
        "handshake-sequence.txt",
        "handshake.pcapng",
    ]
    assert "SYN|ACK" in (folder / "handshake-sequence.txt").read_text()


WRONG = {
    "contradicting rules": (
        "TwoHosts(rules=(Drop(data(2)), Delay(data(2), 5)))",
        2,
        "contradiction: drop data #2",
    ),
    "a rate below one segment": (
        "TwoHosts(rules=(Rate(way=Way.TO_SERVER, rate_mbit=0.001),))",
        2,
        "one full-size segment takes",
    ),
    "a segment that never comes": ("TwoHosts(rules=(Drop(data(99)),))", 1, "found its packet"),
    "a medium that cannot": ("TwoHosts(medium=Medium.VETH, delay_ms=5)", 3, "does not delay"),
}
SCENARIO = '''"""Something wrong."""
from lab import scenario
from lab.wire import Delay, Drop, Medium, Rate, TwoHosts, Way, data

@scenario({hosts})
def wrong(lab):
    client, server = lab.connect()
    lab.deliver(client, server, 3000)
    lab.check("the stream arrives intact", server.intact)
'''


@pytest.mark.parametrize(("hosts", "code", "says"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_with_a_script_is_said(hosts, code, says, tmp_path, capsys) -> None:
    path = tmp_path / "wrong.py"
    path.write_text(SCENARIO.format(hosts=hosts))
    assert run(["run", str(path)]) == code
    told = capsys.readouterr()
    assert says in told.out + told.err
