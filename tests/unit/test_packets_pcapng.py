"""Captures written by the lab are read back by tshark, which did not write them."""

import json
import shutil
import subprocess

import pytest

from lab.errors import InputError
from lab.packets import pcapng
from lab.packets.pcapng import Direction, Interface, Packet

FRAME = bytes.fromhex("02000000000202000000000108004500001c0001000040110000")
FRAME += bytes([10, 0, 0, 1, 10, 0, 0, 2]) + bytes.fromhex("0035003500080000")
PLACES = (Interface(name="client", description="the client's device"), Interface(name="server"))


def capture() -> bytes:
    return pcapng.encode(
        PLACES,
        (
            Packet(interface=0, time_ns=1_700_000_000_123_456_789, data=FRAME, comment="sent"),
            Packet(
                interface=1,
                time_ns=1_700_000_000_123_556_789,
                data=FRAME[:34],
                length=len(FRAME),
                direction=Direction.INBOUND,
            ),
        ),
    )


@pytest.mark.skipif(not shutil.which("tshark"), reason="tshark, the independent reader, is missing")
def test_tshark_reads_interfaces_times_comments_and_lengths(tmp_path) -> None:
    path = tmp_path / "two.pcapng"
    path.write_bytes(capture())
    fields = (
        "frame.interface_name",
        "frame.time_epoch",
        "frame.comment",
        "frame.len",
        "frame.cap_len",
        "ip.dst",
    )
    command = ["tshark", "-r", str(path), "-T", "json", *(w for f in fields for w in ("-e", f))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = [packet["_source"]["layers"] for packet in json.loads(done.stdout)]
    assert [row["frame.interface_name"] for row in rows] == [["client"], ["server"]]
    assert rows[0]["frame.time_epoch"] == ["1700000000.123456789"]
    assert rows[0]["frame.comment"] == ["sent"]
    assert [(row["frame.len"], row["frame.cap_len"]) for row in rows] == [
        (["42"], ["42"]),
        (["42"], ["34"]),
    ]
    assert rows[1]["ip.dst"] == ["10.0.0.2"]


def test_blocks_are_multiples_of_four_bytes_and_frame_each_other() -> None:
    kinds = [kind for kind, _ in pcapng.blocks(capture())]
    assert kinds == [0x0A0D0D0A, 1, 1, 6, 6]
    assert len(capture()) % 4 == 0


def test_a_packet_at_an_unknown_interface_is_refused() -> None:
    with pytest.raises(InputError, match="interface 2"):
        pcapng.encode(PLACES, (Packet(interface=2, time_ns=0, data=b""),))


@pytest.mark.parametrize("cut", [1, 8, 30], ids=lambda cut: f"the last {cut} bytes are missing")
def test_a_cut_file_is_recognised(cut: int) -> None:
    with pytest.raises(InputError, match="ends inside a block"):
        list(pcapng.blocks(capture()[:-cut]))
