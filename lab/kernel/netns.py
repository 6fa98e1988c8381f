"""Network namespaces without names: each is a file descriptor with a netlink socket inside."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pyroute2.iproute.linux import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from lab.errors import KernelError
from lab.kernel.syscalls import CLONE_NEWNET, inside_netns, setns, unshare

SELF = "/proc/thread-self/ns/net"


class NetworkNamespace:
    """A network namespace and a netlink socket in it; both go with :meth:`close`.

    The kernel removes the namespace, its links, qdiscs, filters and routes when the last file
    descriptor, process and socket in it is gone.

    Attributes:
        name: what the lab calls it.
        fd: file descriptor of the namespace.
        inode: number that identifies it, as ``readlink /proc/PID/ns/net`` shows.
    """

    def __init__(self, name: str, fd: int, netlink: IPRoute) -> None:
        self.name = name
        self.fd = fd
        self.inode = os.fstat(fd).st_ino
        self._netlink = netlink

    @classmethod
    def create(cls, name: str) -> NetworkNamespace:
        """Make a new namespace; the calling thread stays where it is.

        Raises:
            PrerequisiteError: not root.
        """
        home = os.open(SELF, os.O_RDONLY | os.O_CLOEXEC)
        try:
            # unshare moves the calling thread: the namespace is held by descriptor, then the thread
            # goes home
            unshare(CLONE_NEWNET)
            try:
                fd = os.open(SELF, os.O_RDONLY | os.O_CLOEXEC)
                return cls(name, fd, IPRoute())
            finally:
                setns(home, CLONE_NEWNET)
        finally:
            os.close(home)

    @classmethod
    def adopt(cls, name: str, path: str) -> NetworkNamespace:
        """Open an existing namespace by path, for example ``/proc/42/ns/net``.

        Raises:
            KernelError: the path is gone or no namespace.
        """
        home = os.open(SELF, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            with inside_netns(fd, home):
                return cls(name, fd, IPRoute())
        except OSError as error:
            raise KernelError(
                f"network namespace {name!r} at {path}: {error.strerror}", hint="is it running?"
            ) from None
        finally:
            os.close(home)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Run the block inside the namespace: sockets made there belong to it.

        Only the calling thread moves; it is back where it was after the block.
        """
        home = os.open(SELF, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with inside_netns(self.fd, home):
                yield
        finally:
            os.close(home)

    def request(self, family: str, command: str, /, **arguments: Any) -> Any:
        """Send one netlink request, for example ``request("link", "set", index=2, state="up")``.

        Raises:
            KernelError: the kernel refused it; operation, namespace, object and errno are named.
        """
        try:
            # pyroute2 opens another socket in each thread that asks, wherever that thread is
            with self.entered():
                return getattr(self._netlink, family)(command, **arguments)
        except NetlinkError as error:
            what = arguments.get("ifname") or arguments.get("dst") or arguments.get("address")
            name = errno.errorcode.get(error.code, str(error.code))
            raise KernelError(
                f"{family} {command} {what or arguments} in {self.name!r}: "
                f"{name} {error.args[1] if len(error.args) > 1 else ''}".rstrip(),
                hint="see `lab plan` for the step and `lab doctor` for what the kernel lacks",
            ) from None

    def set_sysctl(self, key: str, value: str, *, if_there: bool = False) -> None:
        """Write a sysctl below ``net.`` of this namespace only.

        Args:
            key: below ``net.``, with dots.
            value: to write.
            if_there: do nothing where the kernel has no such key.

        Raises:
            KernelError: the key does not exist or the value is refused.
        """
        path = Path("/proc/sys/net", *key.split("."))
        try:
            with self.entered():
                if if_there and not path.exists():
                    return
                path.write_text(value)
        except OSError as error:
            raise KernelError(
                f"sysctl net.{key}={value} in {self.name!r}: {error.strerror}",
                hint="the kernel does not offer it in a network namespace",
            ) from None

    def close(self) -> None:
        """Let go of the namespace; idempotent."""
        if self.fd >= 0:
            self._netlink.close()
            os.close(self.fd)
            self.fd = -1
