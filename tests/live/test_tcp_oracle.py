"""tshark, which knows nothing of the lab, comes to the same conclusions from the capture."""

import shutil
import subprocess
from collections import Counter

import pytest
from experiments import EXPERIMENTS, report_of

from lab.wire import Flag, Recording, Way
from lab.wire.capture import Vantage, save

pytestmark = [
    pytest.mark.live,
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("tshark"), reason="tshark, the oracle, is missing"),
]

# what tshark calls by these names; the client's own data out of order is data sent again
VERDICTS = {
    "sent again": "tcp.analysis.retransmission or tcp.analysis.out_of_order",
    "duplicate ACKs": "tcp.analysis.duplicate_ack",
    "closed windows": "tcp.analysis.zero_window",
    "probes": "tcp.analysis.keep_alive",  # an empty segment one byte back
}
# an ACK that answers a repeated SYN-ACK, FIN or segment: tshark counts it as a duplicate, and TCP
# does not, because nothing is missing
REPEATED_ANSWERS = {"half_open": 1, "time_wait": 1, "spurious_retransmission": 1}


def recording_of(name: str) -> Recording:
    report = report_of(name)
    assert report.passed, report
    return report.pictures[-1].recording


def tshark(path) -> dict[str, int]:
    """Return how many packets carry each verdict."""
    command = ["tshark", "-r", str(path), "-T", "fields"]
    fields = [word for words in VERDICTS.values() for word in words.split(" or ")]
    for field in fields:
        command += ["-e", field]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = [line.split("\t") for line in done.stdout.split("\n") if line]
    return {
        name: sum(any(row[fields.index(word)] for word in words.split(" or ")) for row in rows)
        for name, words in VERDICTS.items()
    }


def control_sent_again(seen: Recording) -> int:
    """Return how many SYNs and FINs the client's device saw after the same one before."""
    kinds = Counter(
        (flight.sent.way, flight.sent.port, flight.sent.seq, flight.sent.flags)
        for flight in seen.flights
        if flight.sent.flags & (Flag.SYN | Flag.FIN)
        and not flight.sent.length
        and (flight.sent.way is Way.TO_SERVER or not flight.lost)
    )
    return sum(count - 1 for count in kinds.values())


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_tshark_counts_the_same(name: str, tmp_path) -> None:
    seen = recording_of(name)
    path = save(seen, tmp_path / "client.pcapng", vantage=Vantage.CLIENT)
    arrived = [flight for flight in seen.duplicate_acks() if not flight.lost]
    closed = [f for f in seen.acks(Way.TO_CLIENT) if f.sent.window == 0 and not f.lost]
    assert tshark(path) == {
        "sent again": len(seen.retransmissions()) + control_sent_again(seen),
        "duplicate ACKs": len(arrived) + REPEATED_ANSWERS.get(name, 0),
        "closed windows": len(closed),
        "probes": len(seen.probes()),
    }


@pytest.mark.parametrize("name", ["fast_retransmit", "window_of_three"])
def test_tshark_sees_the_loss_as_a_gap_at_the_receiver(name: str, tmp_path) -> None:
    seen = recording_of(name)
    path = save(seen, tmp_path / "server.pcapng", vantage=Vantage.SERVER)
    command = ["tshark", "-r", str(path), "-Y", "tcp.analysis.lost_segment"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == len(seen.lost())
