"""TCP carries a stream: three messages arrive as one unless something marks their ends."""

from lab import scenario
from lab.wire import Look, SocketOptions, TwoHosts

hosts = TwoHosts(delay_ms=2)
MESSAGES = ["你好不好", "我很好", "再见"]


@scenario(hosts)
def sticky_packets(lab):
    """Three messages bare, then with a length in front, then with a separator behind."""
    client, server = lab.connect(client=SocketOptions(no_delay=True))
    bare = exchange(lab, client, server, [message.encode() for message in MESSAGES])
    lab.check("three messages are three segments", len(lab.recording().data()) == 3)
    lab.check("one read returns all three stuck together", bare == "".join(MESSAGES).encode())

    framed = exchange(lab, client, server, [with_length(message) for message in MESSAGES])
    lab.check("a length in front tells them apart", split_by_length(framed) == MESSAGES)
    ended = exchange(lab, client, server, [f"{message}；".encode() for message in MESSAGES])
    lab.check("so does a separator behind", ended.decode().split("；")[:-1] == MESSAGES)
    text = ["a；b", "c"]
    wrong = exchange(lab, client, server, [f"{message}；".encode() for message in text])
    lab.check("unless a message contains it", wrong.decode().split("；")[:-1] != text)
    right = exchange(lab, client, server, [with_length(message) for message in text])
    lab.check("which a length does not mind", split_by_length(right) == text)
    lab.exactly("segments", [flight.sent.length for flight in lab.recording().data()])
    lab.picture(
        Look.SEQUENCE,
        "Three segments, one read: the boundaries are gone",
        lab.recording(),
        note="Three writes of 12, 9 and 6 bytes; the server reads once, later, and gets all 27.",
        to_ms=30,
    )


def exchange(lab, client, server, parts):
    """Send the parts one by one; return what one late read gives."""
    for part in parts:
        client.send(part)
    lab.wait_quiet()
    return server.receive_once()


def with_length(message):
    """Put the number of bytes in front, four bytes, big endian."""
    return len(message.encode()).to_bytes(4, "big") + message.encode()


def split_by_length(stream):
    """Return the messages of a stream made by ``with_length``."""
    messages = []
    while stream:
        end = 4 + int.from_bytes(stream[:4], "big")
        messages.append(stream[4:end].decode())
        stream = stream[end:]
    return messages
