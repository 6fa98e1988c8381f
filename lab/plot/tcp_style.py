"""One style for every TCP picture: colours told apart by everybody, sizes read from the last row.

Colours are those of Okabe and Ito; whatever a colour says, a word or a line style says too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.plot.tcp_words import Role
from lab.wire.picture import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_INCHES = 12.8
# a screen's width for its height, 16 to 10
_SCREEN = 1.6
TEXT_POINTS = 15
SMALL_POINTS = 13
TITLE_POINTS = 20
INK = "#202020"
PALE = "#8a8a8a"
LOST = "#D55E00"
_PAD_INCHES = 0.14
_CAPTION_INCHES = 0.42
COLOUR = {
    Role.DATA: "#0072B2",
    Role.ACK: "#009E73",
    Role.AGAIN: "#B35900",
    Role.REPEATED: "#8F5A7E",
    Role.CLOSED: "#D55E00",
    Role.PROBE: "#8F5A7E",
    Role.CONTROL: INK,
}
CLOSED_COLOUR = "#F8DCC8"
NOTE_COLOUR = "#EEEEEE"
SEED_COLOUR = "#FFF4CC"
LINUX_COLOUR = "#DDEEF8"
STATE_COLOUR = {
    "Disorder": "#F0E442",
    "CWR": "#CC79A7",
    "Recovery": "#E69F00",
    "Loss": "#D55E00",
}


def width_inches(height_inches: float) -> float:
    """Return how wide a picture of a height is: a high one fills a screen."""
    return max(WIDTH_INCHES, height_inches * _SCREEN)


def figure(height_inches: float) -> tuple[Figure, Axes]:
    """Return a new figure and its axes, without a window or a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    made = Figure(figsize=(width_inches(height_inches), height_inches), facecolor="white")
    made.set_layout_engine("constrained", h_pad=_PAD_INCHES, w_pad=_PAD_INCHES)
    # without pyplot, which looks for a display and keeps every figure
    FigureCanvasAgg(made)
    return made, made.add_subplot()


def title(axes: Axes, text: str) -> None:
    """Write the sentence a picture proves above it."""
    axes.set_title(text, fontsize=TITLE_POINTS, color=INK, loc="left", pad=16, wrap=True)


def compare(made: Figure, picture: Picture) -> None:
    """Write below a picture what to see, what the textbook drawing says and what Linux does."""
    said = [
        ("", picture.note, NOTE_COLOUR),
        ("The drawing: ", picture.seed, SEED_COLOUR),
        ("Linux: ", picture.linux, LINUX_COLOUR),
    ]
    texts = [(name + words, colour) for name, words, colour in said if words]
    for number, (text, colour) in enumerate(reversed(texts)):
        made.text(
            0.02,
            (_PAD_INCHES + 0.06 + number * _CAPTION_INCHES) / made.get_figheight(),
            text,
            fontsize=SMALL_POINTS,
            color=INK,
            bbox={"facecolor": colour, "edgecolor": "none", "pad": 5},
        )
    if texts:
        from matplotlib.layout_engine import ConstrainedLayoutEngine

        # captions belong to no axes: the layout has to be told to leave room for them
        room = (_CAPTION_INCHES * len(texts) + 0.15) / made.get_figheight()
        made.set_layout_engine(
            ConstrainedLayoutEngine(
                rect=(0, room, 1, 1 - room), h_pad=_PAD_INCHES, w_pad=_PAD_INCHES
            )
        )


def plain(axes: Axes) -> None:
    """Leave only the two axes lines that carry numbers."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=SMALL_POINTS, colors=INK)
    axes.grid(True, color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
