"""``lab explain``: every name of the datapath has a text, and people find it."""

import json
import re

import pytest

from lab.cli import explanations, root
from lab.datapath.build import SOURCES

C = {path: path.read_text() for path in (*SOURCES.glob("*.c"), *SOURCES.glob("lib/*.h"))}


def declared(pattern: str) -> set[str]:
    """Names the sources declare, found with a pattern of this test's own."""
    return {name for text in C.values() for name in re.findall(pattern, text)}


def explained(kind: str) -> set[str]:
    return {entry.name for entry in explanations.entries() if entry.kind == kind}


DECLARED = {
    "every program section": ("hook", r'SEC\("(?:tc/)?((?:from|to)-[a-z]+|prelude)"\)'),
    "every map": ("map", r'(\w+) SEC\("\.maps"\)'),
    "every drop reason": ("drop reason", r"DROP_(\w+) = -\d+"),
    "every tail-call slot": ("tail call", r'TAIL_CALL\("(cilium_calls/\d+)"\)'),
    "every trace point": ("trace point", r"TRACE_((?:TO|FROM)_\w+) = \d+"),
}


@pytest.mark.parametrize(("kind", "pattern"), DECLARED.values(), ids=DECLARED.keys())
def test_has_a_text(kind: str, pattern: str) -> None:
    names = declared(pattern)
    assert names and names <= explained(kind), sorted(names - explained(kind))


WORDS = {
    "a hook by its section": ("from-container", "hook", "from-container"),
    "a hook by its C function": ("cil_to_netdev", "hook", "to-netdev"),
    "a map by its name": ("cilium_lxc", "map", "cilium_lxc"),
    "a map by its name under the bpffs": ("cilium_policy_01234", "map", "cilium_policy"),
    "the calls of a device": ("cilium_calls_netdev_00002", "map", "cilium_calls"),
    "a drop reason by number": ("133", "drop reason", "POLICY"),
    "a drop reason by its negative number": ("-181", "drop reason", "POLICY_DENY"),
    "a drop reason by its C name": ("DROP_POLICY", "drop reason", "POLICY"),
    "a drop reason by the monitor's words": ("Policy denied", "drop reason", "POLICY"),
    "a step by number": ("8", "step", "tc ingress"),
    "a step by its kernel function": ("ip_rcv", "step", "ip_rcv"),
    "a slot of the tail calls": ("cilium_calls/7", "tail call", "cilium_calls/7"),
    "a tail call by its C function": ("tail_handle_arp", "tail call", "cilium_calls/6"),
    "a trace point": ("to_overlay", "trace point", "TO_OVERLAY"),
    "a grade of evidence": ("tracepoint", "evidence", "tracepoint"),
    "a word": ("identity", "word", "identity"),
    "a counter of IPsec": ("XfrmInNoStates", "kernel's counter", "XfrmInNoStates"),
}


@pytest.mark.parametrize(("word", "kind", "name"), WORDS.values(), ids=WORDS.keys())
def test_is_found(word: str, kind: str, name: str) -> None:
    found = [entry for entry in explanations.find(word) if entry.kind == kind]
    assert [entry.name for entry in found] == [name]


def test_every_drop_reason_of_the_running_kernel_is_found() -> None:
    reasons = {entry.name for entry in explanations.kernel_reasons()}
    assert {"NO_SOCKET", "NETFILTER_DROP"} <= reasons
    for name in reasons:
        assert name in {entry.name for entry in explanations.find(name)}
        assert explanations.find(f"SKB_DROP_REASON_{name}")


def test_places_named_are_where_the_sources_have_it() -> None:
    (entry,) = explanations.find("cilium_lxc")
    path, _, line = entry.sources[0].removeprefix("bpf/").partition(":")
    assert "cilium_lxc SEC" in (SOURCES / path).read_text().splitlines()[int(line) - 1]


def test_every_name_to_go_on_with_is_explained_too() -> None:
    for entry in explanations.entries():
        for name in entry.see:
            assert explanations.find(name)


def test_misspelt_name_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert root.run(["explain", "form-container"]) == 2
    assert "did you mean 'from-container'?" in capsys.readouterr().err


def test_nonsense_is_not_guessed_at(capsys: pytest.CaptureFixture[str]) -> None:
    assert root.run(["explain", "qqqqqqqq"]) == 2
    assert "lists everything" in capsys.readouterr().err


def test_json_is_a_list_of_entries(capsys: pytest.CaptureFixture[str]) -> None:
    assert root.run(["explain", "-o", "json", "POLICY"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert (entry["kind"], entry["number"]) == ("drop reason", "133")


def test_without_a_name_everything_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert root.run(["explain"]) == 0
    said = capsys.readouterr().out
    assert "from-container" in said and "133 POLICY" in said and "19 sk_data_ready" in said
    assert max(map(len, said.splitlines())) <= 100
