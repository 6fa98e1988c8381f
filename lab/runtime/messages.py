"""Messages between keeper, workers and callers (:mod:`lab.kernel.messages`), errors among them."""

from typing import Any

from lab.errors import LabError
from lab.kernel.messages import Closed, receive, send


def error_message(error: LabError) -> dict[str, Any]:
    """Return an error as a message; :func:`lab.runtime.start.raise_error` raises it again."""
    return {"error": type(error).__name__, "message": error.message, "hint": error.hint}


def defect_message(error: Exception) -> dict[str, Any]:
    """Return an error that nobody foresaw as a message."""
    text = f"{type(error).__name__}: {error}"
    return {"error": "LabError", "message": text, "hint": "a defect: see the lab's keeper.log"}


__all__ = ["Closed", "defect_message", "error_message", "receive", "send"]
