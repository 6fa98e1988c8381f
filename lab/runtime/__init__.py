"""The running lab: the keeper process that owns it, and the objects that talk to it."""

from lab.runtime.live import Lab, LiveNode, LivePod, open_lab

__all__ = ["Lab", "LiveNode", "LivePod", "open_lab"]
