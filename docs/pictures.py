"""Make the picture of the README from a run on this machine: ``sudo python docs/pictures.py``.

Sends one datagram from a pod on alpha to a pod on beta, writes the page that plays its way, and
lets Chromium take the picture where the packet leaves alpha inside the tunnel.
"""

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from lab import Lab  # noqa: E402
from lab.kernel import process  # noqa: E402
from lab.report.headers import tunnel  # noqa: E402
from lab.report.html import page  # noqa: E402
from lab.report.passages import lines, passages  # noqa: E402
from topologies.two_nodes import topology  # noqa: E402

PICTURE = ROOT / "docs" / "trace.png"


def take() -> None:
    """Run the lab and write the picture."""
    with Lab(topology) as lab:
        trace = lab.follow("client", "server").packets[0]
    shown = [line.hop for passage in passages(trace) for line in lines(passage)]
    at = next(n for n, hop in enumerate(shown) if hop.before and tunnel(hop.before, hop.link_layer))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.html"
        path.write_text(page(trace, topology), encoding="utf-8")
        process.run(
            ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
             "--disable-background-networking", "--window-size=1440,900",
             f"--user-data-dir={folder}/profile", "--virtual-time-budget=3000",
             f"--screenshot={PICTURE}", f"file://{path}#step={at}"],
            timeout_s=120,
        )  # fmt: skip


if __name__ == "__main__":
    take()
