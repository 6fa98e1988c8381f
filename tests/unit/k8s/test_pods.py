"""What counts as ready: the answers that a kubelet takes for good."""

import pytest

from lab.k8s.pods import _GOOD

ANSWERS = {
    "a server of the lab": (b"HTTP/1.1 200 OK\r\n", True),
    "Python's own server, which speaks HTTP/1.0": (b"HTTP/1.0 200 OK\r\n", True),
    "nothing to say": (b"HTTP/1.1 204 No Content\r\n", True),
    "a redirect": (b"HTTP/1.1 302 Found\r\n", True),
    "not found": (b"HTTP/1.0 404 File not found\r\n", False),
    "not well": (b"HTTP/1.1 503 Service Unavailable\r\n", False),
    "no HTTP": (b"200 OK\r\n", False),
    "nothing": (b"", False),
}


@pytest.mark.parametrize(("answer", "good"), ANSWERS.values(), ids=ANSWERS.keys())
def test_an_answer_to_a_readiness_probe(answer, good):
    assert (_GOOD.match(answer) is not None) is good
