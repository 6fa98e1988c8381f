"""tshark, which knows nothing of the lab, comes to the same conclusions from the capture."""

import shutil
import subprocess

import pytest

from lab.scenarios import load_scenarios
from lab.wire import Way
from lab.wire.capture import Vantage, save

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(not shutil.which("tshark"), reason="tshark, the oracle, is missing"),
]


def recording_of(name: str):
    (experiment,) = load_scenarios([f"scenarios/tcp/{name}.py"])
    report = experiment.run()
    assert report.passed, report
    return report.pictures[0].recording


def count(path, display_filter: str) -> int:
    command = [
        "tshark",
        "-r",
        str(path),
        "-Y",
        display_filter,
        "-T",
        "fields",
        "-e",
        "frame.number",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return len(done.stdout.split())


SENT_AGAIN = ["fast_retransmit", "rto_backoff", "tail_loss_probe", "corrupted_segment"]


@pytest.mark.parametrize("name", SENT_AGAIN)
def test_tshark_counts_the_same_retransmissions_and_duplicate_acks(name: str, tmp_path) -> None:
    seen = recording_of(name)
    path = save(seen, tmp_path / "client.pcapng", vantage=Vantage.CLIENT)
    # what the client calls sent again, tshark calls a retransmission of one kind or another
    assert count(path, "tcp.analysis.retransmission") == len(seen.retransmissions())
    arrived = [flight for flight in seen.duplicate_acks() if not flight.lost]
    assert count(path, "tcp.analysis.duplicate_ack") == len(arrived)


def test_tshark_sees_the_loss_as_a_gap_at_the_receiver(tmp_path) -> None:
    seen = recording_of("fast_retransmit")
    path = save(seen, tmp_path / "server.pcapng", vantage=Vantage.SERVER)
    assert count(path, "tcp.analysis.lost_segment") == len(seen.lost())


@pytest.mark.parametrize("name", ["zero_window", "persist_timer"])
def test_tshark_counts_the_same_closed_windows_and_probes(name: str, tmp_path) -> None:
    seen = recording_of(name)
    path = save(seen, tmp_path / "client.pcapng", vantage=Vantage.CLIENT)
    closed = [f for f in seen.acks(Way.TO_CLIENT) if f.sent.window == 0 and not f.lost]
    assert count(path, "tcp.analysis.zero_window") == len(closed)
    # Linux probes with an empty segment one byte back, which tshark calls a keep-alive
    assert count(path, "tcp.analysis.keep_alive") == len(seen.probes())


def test_tshark_sees_nothing_wrong_where_nothing_was_lost(tmp_path) -> None:
    seen = recording_of("slow_start")
    path = save(seen, tmp_path / "client.pcapng", vantage=Vantage.CLIENT)
    assert count(path, "tcp") == len(seen.flights)
    assert count(path, "tcp.analysis.retransmission or tcp.analysis.duplicate_ack") == 0
