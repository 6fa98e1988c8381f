"""What a pod's process answers: HTTP, names, echoes."""

import json
import select
import signal
import socket
import struct
import sys
import threading

import pytest

from lab.k8s import containers
from lab.k8s.containers import _dns, _Server, _start
from lab.waiting import eventually


@pytest.fixture(scope="module")
def server():
    made = _Server("shop/web-1", {"api.shop.svc.cluster.local": ["10.96.0.12"]})
    ports = {}
    for protocol, mode in (("tcp", "http"), ("tcp", "echo"), ("udp", "echo"), ("tcp", "dns")):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            number = probe.getsockname()[1]
        assert made.listen(protocol, number, mode, "{pod} says hello\n") == ""
        ports[f"{mode}/{protocol}"] = number
    threading.Thread(target=made.run, daemon=True).start()
    return ports


def ask(port, data):
    with socket.create_connection(("127.0.0.1", port), 2) as sock:
        sock.sendall(data)
        return sock.recv(65536)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/", b"web-1 says hello\n"),
        ("/hostname", b"web-1"),
        ("/healthz", b"OK"),
        ("/echo?msg=moin", b"moin"),
    ],
)
def test_http(server, path, body):
    answer = ask(server["http/tcp"], f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    head, _, content = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert content == body


def test_head_has_no_body(server):
    answer = ask(server["http/tcp"], b"HEAD / HTTP/1.1\r\n\r\n")
    assert answer.endswith(b"\r\n\r\n")


def test_echo(server):
    assert ask(server["echo/tcp"], b"PING\r\n") == b"PING\r\n"


def test_a_reader_that_comes_late_still_gets_everything(server):
    sent = bytes(range(256)) * (1 << 16)
    with socket.create_connection(("127.0.0.1", server["echo/tcp"]), 5) as sock:
        writer = threading.Thread(target=sock.sendall, args=(sent,))
        writer.start()
        # not joined first: the server waits for us to read, and we for it
        eventually(lambda: not select.select([], [sock], [], 0.1)[1], within_s=5, what="no room")
        came = b""
        while len(came) < len(sent) and (part := sock.recv(1 << 20)):
            came += part
        writer.join()
    assert came == sent


def test_a_target_that_is_no_url_is_refused_and_the_next_one_answered(server):
    assert ask(server["http/tcp"], b"GET //[ HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert ask(server["http/tcp"], b"GET /healthz HTTP/1.1\r\n\r\n").endswith(b"OK")


def test_udp_echo(server):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(2)
        sock.sendto(b"x", ("127.0.0.1", server["echo/udp"]))
        assert sock.recv(10) == b"x"


def query(name, kind=1):
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    return struct.pack("!HHHHHH", 7, 0x100, 1, 0, 0, 0) + labels + struct.pack("!BHH", 0, kind, 1)


NAMES = {"api.shop.svc.cluster.local": ["10.96.0.12"]}
ANSWERS = {
    "known name": ("api.shop.svc.cluster.local", 1, 0, 1),
    "known name in capitals": ("API.shop.svc.cluster.local", 1, 0, 1),
    "known name, no address of that kind": ("api.shop.svc.cluster.local", 28, 0, 0),
    "unknown name": ("nobody.shop.svc.cluster.local", 1, 3, 0),
}


@pytest.mark.parametrize(("name", "kind", "code", "count"), ANSWERS.values(), ids=ANSWERS.keys())
def test_names(name, kind, code, count):
    answer = _dns(query(name, kind), NAMES)
    number, flags, _, answers, _, _ = struct.unpack("!HHHHHH", answer[:12])
    assert (number, flags & 15, answers) == (7, code, count)
    if count:
        assert answer[-4:] == socket.inet_aton("10.96.0.12")


@pytest.mark.parametrize("cut", range(0, 40, 3))
def test_a_cut_query_is_answered_without_an_address(cut):
    whole = query("api.shop.svc.cluster.local")
    assert b"\x0a\x60\x00\x0c" not in _dns(whole[:cut], NAMES)


def test_names_over_tcp(server):
    data = query("api.shop.svc.cluster.local")
    answer = ask(server["dns/tcp"], struct.pack("!H", len(data)) + data)
    assert struct.unpack("!H", answer[:2])[0] == len(answer) - 2
    assert answer.endswith(socket.inet_aton("10.96.0.12"))


def test_a_port_that_is_taken_is_a_problem_not_an_end():
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        problem = _Server("p", {}).listen("tcp", other.getsockname()[1], "http", "")
    assert "Address already in use" in problem
    assert json.dumps(problem)


@pytest.fixture
def said(tmp_path, monkeypatch):
    """What the commands of pod ``shop/web`` have written so far; as in the pod's own process."""
    monkeypatch.setattr(containers, "LOGS", tmp_path)
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    yield lambda: (tmp_path / "shop.web.log").read_text()
    signal.signal(signal.SIGCHLD, before)


def test_commands_of_a_pod_keep_each_others_output(said):
    for words in ("a long line", "short"):
        assert _start("shop/web", ["echo", words]) == ""
    eventually(lambda: said().count("\n") == 2, within_s=10, what="both lines")
    assert sorted(said().splitlines()) == ["a long line", "short"]


def test_a_command_learns_how_its_own_children_ended(said):
    child = "import subprocess; print(subprocess.run(['false']).returncode, flush=True)"
    assert _start("shop/web", [sys.executable, "-c", child]) == ""
    eventually(lambda: said(), within_s=20, what="the command's output")
    assert said() == "1\n"


def test_a_command_that_does_not_exist_is_a_problem(said):
    assert _start("shop/web", ["/no/such/program"]) == (
        "command '/no/such/program': No such file or directory"
    )
