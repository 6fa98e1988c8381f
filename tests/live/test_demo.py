"""``lab demo`` as a newcomer runs it: exit 0, the picture, the sentences, the ladder."""

import json
from dataclasses import replace

import pytest

from lab.cli import demo
from lab.cli.root import run
from lab.runtime.registry import labs
from lab.trace import Trace

pytestmark = pytest.mark.live

SHOWN = (
    "demo: 2 nodes, 3 pods",
    "✓ a datagram from client (alpha) to server (beta) is answered",
    "VXLAN VNI 25",
    "19 sk_data_ready",
    "✓ delivered to a socket",
)


def test_it_shows_picture_sentences_and_ladder_and_leaves_no_lab(capsys):
    assert run(["demo"]) == 0
    out = capsys.readouterr().out
    assert [text for text in SHOWN if text not in out] == []
    assert labs() == ()


def test_json_holds_the_sentences_and_the_trace(capsys, tmp_path):
    assert run(["demo", "-o", "json", "--html", str(tmp_path / "t.html")]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["passed"] and all(check["holds"] for check in value["checks"])
    assert Trace.from_json(json.dumps(value["trace"])).delivered
    assert "<svg" in (tmp_path / "t.html").read_text()


def test_a_sentence_that_does_not_hold_is_exit_code_1(capsys, monkeypatch):
    options = replace(demo.TOPOLOGY.options, datapath=False)
    plain = replace(demo.TOPOLOGY, options=options)
    monkeypatch.setattr(demo, "TOPOLOGY", plain)
    assert run(["demo"]) == 1
    assert "✗ a datagram from client" in capsys.readouterr().out
