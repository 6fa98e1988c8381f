"""Traffic without outside tools: senders, servers and frames from inside a pod."""

from lab.traffic.results import Connection, Datagram, Ping

__all__ = ["Connection", "Datagram", "Ping"]
