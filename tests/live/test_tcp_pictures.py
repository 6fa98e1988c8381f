"""``lab run --pictures``: what is left in the folder, and a script of the user's that is wrong."""

import csv
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
        "handshake.csv",
        "handshake.pcapng",
    ]
    assert "SYN|ACK" in (folder / "handshake-sequence.txt").read_text()
    with (folder / "handshake.csv").open() as file:
        table = list(csv.DictReader(file))
    opening = [r for r in table if r["observer"] == "sent"][:3]
    assert [(row["host"], row["flags"], row["seq"], row["ack"]) for row in opening] == [
        ("client", "SYN", "0", "0"),
        ("server", "SYN|ACK", "0", "1"),
        ("client", "ACK", "1", "1"),
    ]
    states = [r["what"] for r in table if (r["observer"], r["host"]) == ("state", "client")]
    assert states == ["SYN_SENT", "ESTABLISHED"]
    counted = {(r["host"], r["what"]): r["value"] for r in table if r["observer"] == "counter"}
    assert counted["client", "TcpActiveOpens"] == "1"


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


def test_repeated_runs_are_tallied_and_their_outcome_has_a_name(capsys) -> None:
    assert run(["run", "scenarios/tcp/no_delay.py", "--repeat", "3"]) == 0
    told = capsys.readouterr().out
    assert "no_delay: 3 of 3 held, one outcome" in told
    assert "1 of 1 scenarios came out the same all 3 times" in told
    assert run(["run", "scenarios/tcp/no_delay.py", "--repeat", "2", "-o", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len({row["outcome"] for row in rows}) == 1
    assert all(row["late_us"]["p50"] <= row["late_us"]["max"] for row in rows)


UNSTEADY = '''"""Something different every time."""
from itertools import count

from lab import scenario
from lab.wire import TwoHosts

NUMBER = count()

@scenario(TwoHosts())
def unsteady(lab):
    lab.check("it runs", True)
    lab.exactly("number", next(NUMBER))
'''


def test_runs_that_come_out_differently_fail_though_each_holds(tmp_path, capsys) -> None:
    path = tmp_path / "unsteady.py"
    path.write_text(UNSTEADY)
    assert run(["run", str(path), "--repeat", "2"]) == 1
    told = capsys.readouterr().out
    assert "2 of 2 held, 2 outcomes" in told
    assert "number: not as in the first run in 1 of 1" in told
