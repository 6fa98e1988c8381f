"""TAP and TUN devices: network interfaces whose other end is a file descriptor."""

from __future__ import annotations

import fcntl
import os
import struct

from lab.errors import KernelError, PrerequisiteError
from lab.kernel.netns import NetworkNamespace

_TUNSETIFF = 0x400454CA
_TUNSETIFINDEX = 0x400454DA
_IFF_TUN, _IFF_TAP, _IFF_NO_PI = 1, 2, 0x1000
_DEVICE = "/dev/net/tun"


def open_tap(namespace: NetworkNamespace, name: str, *, index: int, frames: bool = True) -> int:
    """Make a device in ``namespace`` and return the descriptor of its other end, non-blocking.

    The device exists as long as the descriptor is open somewhere. Without offloads the kernel
    hands over finished packets: checksums filled in, one segment each.

    Args:
        namespace: where the device appears.
        name: of the device, at most 15 characters.
        index: its interface index.
        frames: Ethernet frames (TAP) if true, bare IP packets (TUN) if false.

    Raises:
        PrerequisiteError: the kernel has no TUN/TAP driver here, or the caller is not root.
        KernelError: the name is taken or refused.
    """
    try:
        # the device will belong to the namespace in which its driver is opened
        with namespace.entered():
            fd = os.open(_DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise PrerequisiteError(
            f"{_DEVICE}: {error.strerror}", hint="load the tun module and run as root"
        ) from None
    kind = (_IFF_TAP if frames else _IFF_TUN) | _IFF_NO_PI
    try:
        # before the device is made: afterwards its index is fixed
        fcntl.ioctl(fd, _TUNSETIFINDEX, struct.pack("I", index))
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), kind))
    except OSError as error:
        os.close(fd)
        raise KernelError(
            f"device {name!r} in {namespace.name!r}: {error.strerror}",
            hint="names (at most 15 characters) and indexes are unique in a namespace",
        ) from None
    return fd
