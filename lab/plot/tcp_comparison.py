"""Several connections side by side: cwnd since the first data, each named by its algorithm."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.plot.tcp_style import INK, LOST, SMALL_POINTS, TEXT_POINTS, compare, plain
from lab.plot.tcp_style import figure as new_figure
from lab.plot.tcp_style import title as write_title
from lab.wire.picture import Picture
from lab.wire.recording import Recording

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_HEIGHT_INCHES = 7.2
_MARK = "segment lost"
_LINES = (("#0072B2", "-"), ("#B35900", (0, (6, 2))), ("#009E73", (0, (1, 1))), ("#8F5A7E", "-."))


def draw(picture: Picture) -> Figure:
    """Return the picture as a matplotlib figure; labels say the order of the connections."""
    made, axes = new_figure(_HEIGHT_INCHES)
    recording = picture.recording
    ports = list(dict.fromkeys(flight.sent.port for flight in recording.data()))
    for number, port in enumerate(ports):
        name = picture.labels[number] if number < len(picture.labels) else f"port {port}"
        _draw_connection(axes, recording.connection(port), number, name)
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.set_xlabel("milliseconds since the connection's first data", fontsize=TEXT_POINTS)
    axes.set_ylabel(
        f"cwnd, segments of {recording.mss_bytes} bytes", fontsize=TEXT_POINTS, color=INK
    )
    plain(axes)
    handles, names = axes.get_legend_handles_labels()
    # the connections first, in their order; marks after them
    order = sorted(range(len(names)), key=lambda n: names[n] == _MARK)
    made.legend(
        [handles[n] for n in order], [names[n] for n in order], loc="outside upper right",
        fontsize=SMALL_POINTS, frameon=False, ncols=5,
    )  # fmt: skip
    write_title(axes, picture.title)
    compare(made, picture)
    return made


def _draw_connection(axes: Axes, recording: Recording, number: int, name: str) -> None:
    begun_ns = recording.data()[0].sent.time_ns
    points = [
        (flight.sent.time_ns, flight.sent.state.cwnd)
        for flight in recording.data()
        if flight.sent.state
    ]
    points += [
        (event.time_ns, event.cwnd) for event in recording.events if event.cwnd and event.at_client
    ]
    points.sort()
    colour, style = _LINES[number % len(_LINES)]
    times = [(at - begun_ns) / 1e6 for at, _ in points]
    axes.step(times, [cwnd for _, cwnd in points], where="post", color=colour, linestyle=style,
              linewidth=2.8, label=name)  # fmt: skip
    for cut in recording.entered("RECOVERY"):
        # what is kept of the window, below the line it has come down to
        down_ns = next((at for at, c in points if at > cut.time_ns and c <= cut.ssthresh), 0)
        axes.annotate(
            f"{name}: {cut.cwnd} \u2192 {cut.ssthresh}",
            ((down_ns - begun_ns) / 1e6, cut.ssthresh),
            xytext=(10, -24), textcoords="offset points", fontsize=TEXT_POINTS, color=colour,
        )  # fmt: skip
    for flight in recording.lost():
        before = [cwnd for at, cwnd in points if at <= flight.sent.time_ns] or [0]
        axes.plot([(flight.sent.time_ns - begun_ns) / 1e6], before[-1:], "X", markersize=13,
                  color=LOST, markeredgecolor="white", zorder=5,
                  label=None if number else _MARK)  # fmt: skip
