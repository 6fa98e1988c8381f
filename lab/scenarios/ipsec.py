"""IPsec between two places of a lab: the states and policies of both ends, and back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from lab.runtime import Lab

KEY = "0x" + "11" * 20
OTHER_KEY = "0x" + "22" * 20
"""Of AES-GCM with 128 bits: 16 bytes of key, 4 of salt (RFC 4106)."""
_CIPHER = "aead rfc4106(gcm(aes))"


@dataclass(frozen=True, slots=True)
class End:
    """One end of a pair of security associations.

    Attributes:
        place: pod or node whose kernel encrypts.
        address: of that place.
        covers: prefix for whose packets it does so.
        spi: of what it sends.
    """

    place: str
    address: str
    covers: str
    spi: int


Ends = tuple[End, End]


def pods(lab: Lab, first: str = "client", second: str = "server") -> Ends:
    """Return the ends for two pods that encrypt for themselves."""
    one, two = (str(lab.pod(name).address) for name in (first, second))
    return End(first, one, f"{one}/32", 0x100), End(second, two, f"{two}/32", 0x200)


def nodes(lab: Lab, first: str = "alpha", second: str = "beta") -> Ends:
    """Return the ends for two nodes that encrypt for all of their pods."""
    facts = {node.name: node for node in lab.facts.nodes}
    one, two = facts[first], facts[second]
    return (
        End(first, str(one.address), str(one.pod_cidr), 0x300),
        End(second, str(two.address), str(two.pod_cidr), 0x400),
    )


def associate(lab: Lab, ends: Ends, mode: str, place: str, *, key: str = KEY) -> None:
    """Give one place the states of both directions: it can encrypt and decrypt.

    Raises:
        CheckFailed: the kernel refused one; has it ESP?
    """
    for end, other in (ends, ends[::-1]):
        state = (
            f"ip xfrm state add src {end.address} dst {other.address} proto esp "
            # the 128 at the end: bits of the authentication tag
            f"spi 0x{end.spi:x} mode {mode} replay-window 32 {_CIPHER} {key} 128"
        )
        lab.place(place).run(state.split(), check=True)


def demand(lab: Lab, ends: Ends, mode: str, place: str, *, level: str = "required") -> None:
    """Give one place the policies of both directions: what it sends and takes is to be ESP.

    Args:
        lab: must be up.
        ends: whose packets are meant.
        mode: ``transport`` or ``tunnel``.
        place: one of theirs.
        level: ``required``, or ``use``: encrypt only if there is a state to do it with.
    """
    for end, other in (ends, ends[::-1]):
        # what is decrypted for somebody behind this place is forwarded: checked by `fwd`
        for way in ("out",) if end.place == place else ("in", "fwd"):
            policy = (
                f"ip xfrm policy add src {end.covers} dst {other.covers} dir {way} tmpl "
                f"src {end.address} dst {other.address} proto esp mode {mode} level {level}"
            )
            lab.place(place).run(policy.split(), check=True)


def forget(lab: Lab, ends: Ends) -> None:
    """Take all states and policies of both places away."""
    for end in ends:
        for what in ("policy", "state"):
            lab.place(end.place).run(["ip", "xfrm", what, "flush"], check=True)


@contextmanager
def protected(lab: Lab, ends: Ends, mode: str) -> Iterator[None]:
    """Encrypt between two places while the block runs."""
    try:
        for end in ends:
            associate(lab, ends, mode, end.place)
            demand(lab, ends, mode, end.place)
        yield
    finally:
        forget(lab, ends)
