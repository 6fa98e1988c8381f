"""The page of a trace in a real browser: it plays to its end and complains about nothing."""

import os
import re

import pytest
from traces import DELIVERED, REFUSED

from lab.kernel import process
from lab.report.html import write_page
from topologies.two_nodes import topology

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(process.find("chromium") is None, reason="needs chromium"),
]

FLAGS = (
    "--headless", "--disable-gpu", "--disable-background-networking", "--no-first-run",
    "--enable-logging=stderr", "--virtual-time-budget=120000", "--dump-dom",
)  # fmt: skip


@pytest.fixture
def browse(tmp_path):
    def open_page(path, fragment=""):
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        command = ["chromium", *FLAGS, *sandbox, f"--user-data-dir={tmp_path / 'profile'}",
                   f"file://{path}{fragment}"]  # fmt: skip
        done = process.run(command, timeout_s=120, check=False)
        complaints = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
        return done.stdout, complaints

    return open_page


TRACES = {"delivered": (DELIVERED, topology), "dropped, topology unknown": (REFUSED, None)}


@pytest.mark.parametrize(("trace", "where"), TRACES.values(), ids=TRACES.keys())
def test_the_page_plays_to_the_end_without_complaint(browse, tmp_path, trace, where):
    dom, complaints = browse(write_page(trace, tmp_path / "t.html", where), "#play")
    assert complaints == []
    assert 'data-state="end"' in dom
    assert f"{len(trace.taken)} / {len(trace.taken)}</output>" in dom


def test_a_drop_ends_in_red_with_a_cross(browse, tmp_path):
    dom, _ = browse(write_page(REFUSED, tmp_path / "t.html"), "#play")
    assert re.search(r'<g id="packet"[^>]* class="dropped"', dom)
    assert "✗ dropped: Invalid source ip" in dom


def test_the_packet_wears_its_outer_headers_in_the_underlay(browse, tmp_path):
    dom, _ = browse(write_page(DELIVERED, tmp_path / "t.html"), "#step=9")
    assert re.search(r'<g id="packet"[^>]* class="wrapped"', dom)
    assert re.search(r'<tr class="added"><th>vxlan</th><td><span>vni 256', dom)


def test_a_mistake_in_the_page_would_be_noticed(browse, tmp_path):
    page = write_page(DELIVERED, tmp_path / "t.html")
    script = page.read_text()
    page.write_text(script.replace("    buildLadder();\n", "    noSuchFunction();\n"))
    assert any("noSuchFunction" in line for line in browse(page)[1])


def test_several_packets_are_played_one_after_the_other(browse, tmp_path):
    page = write_page((DELIVERED, REFUSED), tmp_path / "t.html", topology)
    dom, complaints = browse(page, "#play")
    assert complaints == []
    assert 'data-state="end"' in dom
    assert "✗ dropped at alpha · alpha · lxcclient: Invalid source ip</span>" in dom
    assert dom.count("<option>") == 2


def test_one_of_several_packets_is_opened_by_the_address(browse, tmp_path):
    page = write_page((DELIVERED, REFUSED), tmp_path / "t.html", topology)
    dom, _ = browse(page, "#packet=2&step=6")
    assert "✗ dropped: Invalid source ip" in dom
