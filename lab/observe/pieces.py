"""Large packets and what they are made of: which small one is cut out of, or merged into, which.

TCP numbers its bytes. UDP does not: there the pieces count on from the large packet's IP
identification (inet_gso_segment()), and all but the last are equally long.
"""

from __future__ import annotations

from lab.observe.headers import TCP, UDP, Packet

_MOST_PIECES = 128
"""UDP_MAX_SEGMENTS (include/linux/udp.h); 64 on older kernels."""


def cut_from(whole: Packet, piece: Packet, pieces: dict[int, int]) -> str:
    """Say in words how a packet is a piece of a larger one; empty if it is none.

    Args:
        whole: sent or received as one packet.
        piece: of the same flow.
        pieces: of ``whole`` that are known: place in it -> bytes of payload; gets this one too.
    """
    if not 0 < piece.size < whole.size:
        return ""
    if piece.protocol == TCP:
        # sequence numbers are counted modulo 2^32 (RFC 9293, 3.4)
        offset = (piece.serial[0] - whole.serial[0]) & 0xFFFFFFFF
        if offset + piece.size > whole.size:
            return ""
        return f"its sequence numbers are bytes {offset} to {offset + piece.size}"
    return _datagram(whole, piece, pieces) if piece.protocol == UDP else ""


def _datagram(whole: Packet, piece: Packet, pieces: dict[int, int]) -> str:
    place = (piece.ident - whole.ident) & 0xFFFF
    # the first says how long the others are: without it nothing confirms them
    size = pieces.get(0, piece.size if not place else 0)
    if place in pieces or not size or place >= _MOST_PIECES:
        return ""
    offset = place * size
    last = offset + piece.size == whole.size
    if not (last or (piece.size == size and offset + size < whole.size)):
        return ""
    end = min(len(whole.payload), len(piece.payload))
    if not place and whole.payload[:end] != piece.payload[:end]:
        return ""
    pieces[place] = piece.size
    return f"its identification is the {place + 1}. of bytes {offset} to {offset + piece.size}"


def follows(first: Packet, grown: int, piece: Packet) -> bool:
    """Whether GRO may put a packet behind one it holds that has grown to so many bytes.

    Args:
        first: as it was when GRO held it.
        grown: bytes of payload in it by now.
        piece: the candidate.
    """
    if piece.flow != first.flow or not piece.size:
        return False
    if piece.protocol == TCP:
        return grown == (piece.serial[0] - first.serial[0]) & 0xFFFFFFFF
    # udp_gro_receive_segment(): none longer than the first, and a shorter one is the last
    return piece.size <= first.size and grown % first.size == 0


def grown_to(first: Packet, grown: int, last: Packet | None, now: Packet) -> bool:
    """Whether a packet is the one that GRO held, with exactly what it merged into it.

    The last piece may complete it before GRO has said that it merged it.

    Args:
        first: as it was when GRO held it.
        grown: bytes of payload in it by now.
        last: what GRO was given last on that processor.
        now: as it is met.
    """
    if not grown or now.flow != first.flow:
        return False
    if now.ident != first.ident if now.protocol == UDP else now.serial[:1] != first.serial[:1]:
        return False
    more = last.size if last is not None and follows(first, grown, last) else 0
    return now.size in (grown, grown + more)
