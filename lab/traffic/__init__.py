"""Traffic without outside tools: senders, servers and frames from inside a pod."""

from lab.traffic.results import Completed, Connection, Datagram, Ping

__all__ = ["Completed", "Connection", "Datagram", "Ping"]
