"""netem as a wire: delay, where the kernel has the queueing discipline; exact losses it cannot."""

from __future__ import annotations

from dataclasses import dataclass

from lab.errors import KernelError, UnsupportedError
from lab.kernel.netns import NetworkNamespace
from lab.wire.rules import Script, describe

_LIMIT_PACKETS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Netem:
    """What netem is asked for at one device.

    Attributes:
        delay_us: of every packet that leaves the device.
        limit_packets: how many it may hold.
    """

    delay_us: int
    limit_packets: int = _LIMIT_PACKETS

    def command(self, device: str) -> str:
        """Return the line of ``tc`` that does the same."""
        return (
            f"tc qdisc add dev {device} root netem delay {self.delay_us}us "
            f"limit {self.limit_packets}"
        )


def translate(script: Script, *, delay_ms: float) -> Netem:
    """Return what netem has to do, the same in both directions.

    netem sits at the sender and loses at random: dropping there is reported to the sending TCP as
    local congestion, and it knows no ordinals. So it only delays.

    Raises:
        UnsupportedError: the script chooses packets or limits the rate.
    """
    if script.rules:
        raise UnsupportedError(
            f"netem cannot do this exactly: {describe(script.rules[0])}",
            hint="join the hosts by the TAP wire, or a veth pair for drops",
        )
    return Netem(delay_us=round(delay_ms * 1000))


def attach(namespace: NetworkNamespace, ifindex: int, netem: Netem) -> None:
    """Make netem the device's queueing discipline; it goes with the device.

    Raises:
        UnsupportedError: the kernel has no netem.
    """
    try:
        namespace.request(
            "tc", "add", kind="netem", index=ifindex, handle="1:", delay=netem.delay_us,
            limit=netem.limit_packets,
        )  # fmt: skip
    except KernelError as error:
        raise UnsupportedError(
            f"this kernel has no netem: {error.message}",
            hint="use medium=Medium.WIRE, or `lab vm -- lab run ...` on Debian's kernel",
        ) from None
