"""Draw what an experiment wants shown, as SVG, PNG and text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from lab.plot import tcp_comparison, tcp_sequence, tcp_text, tcp_time, tcp_window
from lab.wire.picture import Look, Picture
from lab.wire.recording import Recording

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOTS_PER_INCH = 110
_DRAWERS: dict[Look, Callable[[Picture], Figure]] = {
    Look.SEQUENCE: tcp_sequence.draw,
    Look.TIME_SEQUENCE: tcp_time.draw,
    Look.WINDOW: tcp_window.draw,
    Look.COMPARISON: tcp_comparison.draw,
}


def draw(picture: Picture) -> Figure:
    """Return the picture as a matplotlib figure (a notebook shows it as the cell's value)."""
    return _DRAWERS[picture.look](picture)


def look(
    kind: Look,
    recording: Recording,
    title: str,
    *,
    from_ms: float = 0.0,
    to_ms: float = float("inf"),
    labels: tuple[str, ...] = (),
    note: str = "",
) -> Figure:
    """Return a picture of a recording, or of a stretch of it in milliseconds."""
    return draw(
        Picture(
            look=kind,
            title=title,
            recording=recording,
            from_ms=from_ms,
            to_ms=to_ms,
            labels=labels,
            note=note,
        )
    )


def save(picture: Picture, folder: Path, prefix: str) -> tuple[Path, ...]:
    """Leave ``PREFIX-NAME.svg`` and ``.png`` (and ``.txt`` for a ladder) in ``folder``.

    The SVG carries no date and no random names, so the same picture gives the same file.
    """
    from matplotlib import rc_context

    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{prefix}-{picture.name}"
    made = draw(picture)
    files = [folder / f"{stem}.svg", folder / f"{stem}.png"]
    # letters as paths: no reader has to have the font
    with rc_context({"svg.hashsalt": stem, "svg.fonttype": "path"}):
        made.savefig(files[0], metadata={"Date": None})
    made.savefig(files[1], dpi=DOTS_PER_INCH)
    if picture.look is Look.SEQUENCE:
        files.append(folder / f"{stem}.txt")
        files[-1].write_text(tcp_text.sequence(picture))
    return tuple(files)
