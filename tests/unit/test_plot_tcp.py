"""Pictures of hand-made recordings: every segment is there, losses crossed out, files repeat."""

from xml.etree import ElementTree

import pytest
from segments import answer, data, recording

from lab.plot import tcp, tcp_text
from lab.plot.tcp_words import Role, lines
from lab.wire.judge import Fate
from lab.wire.picture import Look, Picture
from lab.wire.record import Flight

pytest.importorskip("matplotlib")


def seen():
    table = recording(
        data(1, 20), data(1001, 21), data(2001, 22), answer(1001, 30), answer(1001, 31),
        answer(1001, 32), data(1, 50), answer(3001, 60, 0),
    )  # fmt: skip
    flights = list(table.flights)
    flights[2] = Flight(flights[2].sent, Fate.DROPPED, ())
    return type(table)(
        **{**{n: getattr(table, n) for n in table.__slots__}, "flights": tuple(flights)}
    )


def picture(look: Look, **more) -> Picture:
    return Picture(look=look, title="A title", recording=seen(), name="x", **more)


def test_each_segment_has_its_role() -> None:
    roles = [line.role for line in lines(picture(Look.SEQUENCE))]
    assert roles == [
        Role.CONTROL, Role.CONTROL, Role.DATA, Role.DATA, Role.DATA, Role.ACK,
        Role.REPEATED, Role.REPEATED, Role.AGAIN, Role.CLOSED,
    ]  # fmt: skip


def test_the_text_ladder_names_every_segment_and_crosses_out_the_lost_one() -> None:
    text = tcp_text.sequence(picture(Look.SEQUENCE, seed="theirs", linux="ours"))
    rows = [row for row in text.splitlines() if "|" in row]
    assert len(rows) == len(seen().flights)
    assert [row for row in rows if "X" in row] == [rows[2]]
    assert "1–1000 (dropped)" in rows[2]
    assert "duplicate 2" in rows[7]
    assert "1–1000  again" in rows[8]
    assert "drawing:  theirs" in text
    assert "Linux:  ours" in text


def test_skipped_bytes_are_not_counted() -> None:
    text = tcp_text.sequence(picture(Look.SEQUENCE, skip_bytes=1000))
    assert "1001–2000" in text
    assert "2001–3000" not in text


def test_a_stretch_of_time_is_drawn_alone() -> None:
    assert len(lines(picture(Look.SEQUENCE, from_ms=25, to_ms=45))) == 3


@pytest.mark.parametrize("look", list(Look), ids=lambda look: look.value)
def test_every_look_leaves_the_same_svg_twice_and_a_png(look: Look, tmp_path) -> None:
    first = tcp.save(picture(look, labels=("reno",)), tmp_path / "a", "n")
    second = tcp.save(picture(look, labels=("reno",)), tmp_path / "b", "n")
    assert [path.suffix for path in first[:2]] == [".svg", ".png"]
    assert first[0].read_bytes() == second[0].read_bytes()
    assert first[1].read_bytes().startswith(b"\x89PNG")
    assert ElementTree.parse(first[0]).getroot().tag.endswith("svg")


def test_a_picture_of_nothing_is_still_a_picture(tmp_path) -> None:
    empty = Picture(look=Look.SEQUENCE, title="Nothing", recording=seen(), from_ms=1e9)
    assert tcp.save(empty, tmp_path, "n")
