"""Truth tables: what the model expects, how answers are read, what changed."""

import json

import pytest

from lab.errors import InputError
from lab.k8s.matrix import PortNumber, changes, expected, measured, parse_ports
from lab.k8s.place import place
from lab.k8s.read import read_text
from lab.report import matrix as report
from tests.policy_cases import CLUSTER, E2E

HTTP, PING = PortNumber("tcp", 80), PortNumber("icmp", 8)


@pytest.fixture(scope="module")
def world():
    return place(read_text(CLUSTER), name="t")


def policies(name):
    return read_text(E2E[name].manifests).policies


def test_ports_are_read_with_protocols():
    assert parse_ports("80, 53/udp,8/ICMP,80") == (HTTP, PortNumber("udp", 53), PING)


@pytest.mark.parametrize("text", ["eighty", "80/tpc", "70000"])
def test_impossible_ports_are_refused(text):
    with pytest.raises(InputError):
        parse_ports(text)


def test_the_table_has_every_ordered_pair_but_none_of_a_pod_with_itself(world):
    found = expected(world.cluster, (), (HTTP, PING))
    assert len(found.cells) == (9 * 8 + 2 * 9) * 2
    assert {cell.expected for cell in found.cells} == {"allow"}


def test_a_table_can_be_limited_to_some(world):
    found = expected(world.cluster, (), (HTTP,), names=("x/a", "y/b"))
    assert [(cell.source, cell.destination) for cell in found.cells] == [
        ("x/a", "y/b"),
        ("y/b", "x/a"),
    ]


@pytest.mark.parametrize("name", ["nobody", "a"], ids=["unknown", "in three namespaces"])
def test_a_name_must_be_one_pods(world, name):
    with pytest.raises(InputError):
        expected(world.cluster, (), (HTTP,), names=(name,))


class Place:
    """Answers for every target with the words it was given, and remembers what it was asked."""

    def __init__(self, *words):
        self.words = list(words)
        self.asked = []

    def call(self, operation, targets=(), timeout_s=0.0):
        if operation == "answer_refusals":
            return {}
        self.asked.append((operation, targets, timeout_s))
        return {"answers": [self.words[len(self.asked) - 1]] * len(targets)}


@pytest.mark.parametrize(
    ("word", "value"),
    [("open", "allow"), ("refused", "allow"), ("silent", "deny"), ("failed", "unknown")],
)
def test_answers_are_read(world, word, value):
    table = expected(world.cluster, (), (HTTP,), names=("x/a", "y/b"))
    places = {"x/a": Place(word, word), "y/b": Place("open")}
    found = measured(table, world.cluster, places)
    assert [cell.measured for cell in found.cells] == [value, "allow"]


def test_silence_where_an_answer_is_expected_is_probed_once_more_and_longer(world):
    table = expected(world.cluster, (), (HTTP,), names=("x/a", "y/b"))
    hesitant = Place("silent", "open")
    found = measured(table, world.cluster, {"x/a": hesitant}, timeout_s=0.1, again_s=1.0)
    assert found.differences == ()
    assert [timeout for _, _, timeout in hesitant.asked] == [0.1, 1.0]


def test_a_leak_is_a_difference(world):
    table = expected(world.cluster, policies("default-deny-ingress"), (HTTP,), names=("y/a", "x/a"))
    found = measured(table, world.cluster, {"y/a": Place("open", "open")})
    (cell,) = found.differences
    assert (cell.source, cell.destination, cell.measured) == ("y/a", "x/a", "allow")
    assert "1 of 1 measured flows differ" in report.text(found)
    assert "deny expected (networkpolicy/x/p), allow measured" in report.text(found)


def test_changes_between_two_tables(world):
    before = expected(world.cluster, (), (HTTP,))
    after = expected(world.cluster, policies("egress denied for one pod"), (HTTP,))
    found = changes(before, after)
    assert {(change.source, change.before, change.after) for change in found} == {
        ("x/a", "allow", "deny")
    }
    assert report.change_text(found).endswith("9 flows changed")


def test_rows_have_the_promised_fields(world):
    cell = expected(world.cluster, (), (HTTP,)).cells[0]
    assert json.loads(json.dumps(cell.as_row())) == {
        "from": "x/a",
        "to": "x/b",
        "port": 80,
        "protocol": "tcp",
        "expected": "allow",
        "measured": "unknown",
    }


def test_text_draws_rows_and_columns(world):
    table = expected(
        world.cluster, policies("egress denied for one pod"), (HTTP,), names=("x/a", "y/b")
    )
    assert report.text(table).splitlines()[:3] == [
        "80/tcp    1 2",
        "1 x/a     · ✗",
        "2 y/b     ✓ ·",
    ]


def test_the_drawing_names_every_flow(world):
    table = expected(world.cluster, (), (HTTP, PING), names=("x/a", "y/b"))
    drawn = report.svg(table)
    assert drawn.count("<rect") == 4
    assert "x/a → y/b 8/icmp: allow" in drawn
    assert "<script" not in report.page(table, "t")
