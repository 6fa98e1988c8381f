"""How ports of a service are typed."""

import pytest

from lab import ServicePort
from lab.cli.service import parse_port
from lab.errors import InputError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("80", ServicePort(80)),
        ("80:8080", ServicePort(80, 8080)),
        ("53:5353/udp", ServicePort(53, 5353, "UDP")),
        ("53/UDP", ServicePort(53, 0, "UDP")),
    ],
)
def test_port_as_typed(text, expected):
    assert parse_port(text) == expected


@pytest.mark.parametrize("text", ["", "http", ":80", "80:x", "-1"])
def test_anything_else_is_refused(text):
    with pytest.raises(InputError, match="not understood"):
        parse_port(text)
