"""Messages between keeper, workers and callers: see :mod:`lab.kernel.messages`."""

from lab.kernel.messages import Closed, receive, send

__all__ = ["Closed", "receive", "send"]
