"""A worker answers every call, whatever became of it."""

import socket
import threading
from types import SimpleNamespace

import pytest

from lab.kernel.messages import Closed
from lab.runtime.messages import receive, send
from lab.traffic import worker


@pytest.fixture
def call():
    ours, theirs = socket.socketpair()
    ours.settimeout(5)

    def work():
        with pytest.raises(Closed):
            worker.serve(theirs, SimpleNamespace(arguments={}))

    thread = threading.Thread(target=work)
    thread.start()
    assert receive(ours)[0] == {"ready": True}

    def ask(operation, **arguments):
        send(ours, {"call": operation, "arguments": arguments})
        return receive(ours)[0]

    yield ask
    ours.close()
    thread.join(5)
    assert not thread.is_alive()
    theirs.close()


def test_a_source_port_in_use_is_the_result_of_the_call(call):
    with socket.socket(type=socket.SOCK_DGRAM) as holder:
        holder.bind(("", 0))
        taken = holder.getsockname()[1]
        answer = call("udp_send", address="127.0.0.1", port=9, payload="", source_port=taken)
    assert answer["result"]["error"] == "EADDRINUSE"


def test_what_the_kernel_refuses_ends_one_call_only(call):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        answer = call("round_trips", address="127.0.0.1", port=port)
    assert answer["error"] == "KernelError"
    assert answer["message"].startswith("round_trips: ")
    assert call("session_close", session=1) == {"result": {}}


def test_an_unknown_operation_is_refused(call):
    assert call("dance")["error"] == "InputError"
