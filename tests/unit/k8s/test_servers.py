"""Images of published examples become servers on the ports that the images serve."""

import pytest

from lab.errors import InputError
from lab.k8s.objects import Container, Meta, NamedPort, PodObject, PodSpec
from lab.k8s.servers import image_name, listeners_of, server_of


def ports(container):
    return {(item.protocol, item.port) for item in server_of(container).listeners}


CASES = {
    "nginx serves 80": (Container(name="c", image="docker.io/library/nginx:1.27"), {("tcp", 80)}),
    "declared ports replace the image's own": (
        Container(name="c", image="nginx", ports=(NamedPort(number=8080),)),
        {("tcp", 8080)},
    ),
    "busybox waits": (Container(name="c", image="busybox", command=("sleep", "3600")), set()),
    "agnhost netexec": (
        Container(
            name="c",
            image="registry.k8s.io/e2e-test-images/agnhost:2.47",
            args=("netexec", "--http-port=80", "--udp-port", "81"),
        ),
        {("tcp", 80), ("udp", 81)},
    ),
    "agnhost porter": (
        Container(
            name="c",
            image="agnhost:2.47",
            args=("porter",),
            env=(("SERVE_PORT_80", "x"), ("SERVE_UDP_PORT_81", "x"), ("SERVE_SCTP_PORT_82", "x")),
        ),
        {("tcp", 80), ("udp", 81), ("sctp", 82)},
    ),
    "agnhost pause": (Container(name="c", image="agnhost", args=("pause",)), set()),
    "http-echo listens where told": (
        Container(name="c", image="hashicorp/http-echo", args=("-listen=:9000", "-text=hi")),
        {("tcp", 9000)},
    ),
    "coredns answers on both protocols": (
        Container(name="c", image="coredns/coredns"),
        {("tcp", 53), ("udp", 53)},
    ),
    "unknown image with ports": (
        Container(name="c", image="acme/app", ports=(NamedPort(number=9, protocol="UDP"),)),
        {("udp", 9)},
    ),
}


@pytest.mark.parametrize(("container", "expected"), CASES.values(), ids=CASES.keys())
def test_ports(container, expected):
    assert ports(container) == expected


def test_http_echo_answers_its_text():
    (listener,) = server_of(Container(name="c", image="http-echo", args=("-text", "hi"))).listeners
    assert listener.body == "hi\n"


def test_an_unknown_image_with_a_command_runs_it():
    server = server_of(Container(name="c", image="acme/app", command=("python3", "-V")))
    assert server.command == ("python3", "-V")


@pytest.mark.parametrize(
    "image",
    ["nginx", "docker.io/nginx", "r:5000/x/nginx:1", "nginx@sha256:ab", "a/nginx:1@sha256:b"],
)
def test_image_name(image):
    assert image_name(image) == "nginx"


def test_two_containers_cannot_share_a_port():
    spec = PodSpec(
        containers=(Container(name="a", image="nginx"), Container(name="b", image="httpd"))
    )
    with pytest.raises(InputError, match="serve port 80/tcp"):
        listeners_of(PodObject(Meta(name="p"), spec))


@pytest.mark.parametrize(
    "container",
    [
        Container(name="c", image="agnhost", args=("netexec", "--http-port=http")),
        Container(name="c", image="agnhost", args=("netexec", "--udp-port=99999")),
        Container(name="c", image="agnhost", args=("porter",), env=(("SERVE_PORT_70000", "x"),)),
        Container(name="c", image="http-echo", args=("-listen=:web",)),
    ],
    ids=["a word", "a number too large", "a variable's number", "an address without one"],
)
def test_an_option_that_names_no_port_is_refused(container):
    with pytest.raises(InputError, match="no port"):
        server_of(container)


def test_an_option_can_switch_a_port_off():
    args = ("netexec", "--udp-port=-1")
    assert ports(Container(name="c", image="agnhost", args=args)) == {("tcp", 8080)}
