"""Packets as bytes: named packets to send, and files that Wireshark opens."""
