"""What a container's image stands for: a server of the lab with the same ports.

Nothing is pulled: the lab knows the test servers that published examples use, and takes any other
image with container ports as a server on them. Sources: the images' own documentation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from lab.errors import InputError
from lab.k8s.objects import Container, PodObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """One socket that a pod serves.

    Attributes:
        protocol: ``tcp``, ``udp`` or ``sctp``.
        port: number.
        mode: ``http`` (answers any request with ``body``), ``echo`` (what came goes back), or
            ``dns`` (answers every query for a name of the cluster).
        body: of HTTP answers; ``{pod}`` is replaced by the pod's name.
    """

    protocol: str
    port: int
    mode: str = "http"
    body: str = "{pod}\n"


@dataclass(frozen=True, slots=True)
class Server:
    """What a container does in the lab.

    Attributes:
        listeners: what it serves; empty for a client that only waits.
        command: started in the pod instead, if the image is unknown and a command is given.
    """

    listeners: tuple[Listener, ...] = ()
    command: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Image:
    # ports a known image serves by itself; clients serve none
    tcp: tuple[int, ...] = ()
    udp: tuple[int, ...] = ()
    mode: str = "http"
    client: bool = False


_IMAGES = {
    "agnhost": _Image(),
    "netexec": _Image((8080,), (8081,)),
    "serve-hostname": _Image((9376,)),
    "nginx": _Image((80,)),
    "httpd": _Image((80,)),
    "caddy": _Image((80,)),
    "whoami": _Image((80,)),
    "hello-app": _Image((8080,)),
    "http-echo": _Image((5678,)),
    "echoserver": _Image((8080,)),
    "json-mock": _Image((8080,)),
    "httpbin": _Image((80,)),
    "redis": _Image((6379,), mode="echo"),
    "memcached": _Image((11211,), mode="echo"),
    "postgres": _Image((5432,), mode="echo"),
    "mysql": _Image((3306,), mode="echo"),
    "mariadb": _Image((3306,), mode="echo"),
    "mongo": _Image((27017,), mode="echo"),
    "coredns": _Image((53,), (53,), mode="dns"),
    "starwars": _Image((80,)),
    "busybox": _Image(client=True),
    "alpine": _Image(client=True),
    "debian": _Image(client=True),
    "ubuntu": _Image(client=True),
    "curl": _Image(client=True),
    "alpine-curl": _Image(client=True),
    "netshoot": _Image(client=True),
    "pause": _Image(client=True),
    "tgraf-netperf": _Image(client=True),
}


# a registry may have a port: the tag's colon is behind the last slash
def image_name(image: str) -> str:
    """Return the last word of an image reference, without registry, tag and digest."""
    return image.rpartition("/")[2].partition("@")[0].partition(":")[0]


def server_of(container: Container) -> Server:
    """Return what a container does: known image, else its ports, else its command."""
    name = image_name(container.image)
    image = _IMAGES.get(name)
    words = (*container.command, *container.args)
    if name == "agnhost":
        listeners = _agnhost(words, container)
    elif name == "http-echo":
        listeners = _http_echo(words)
    elif image is not None and not image.client:
        # what the manifest declares says more than the image's default
        listeners = _declared(container, image.mode) or [
            *(Listener(protocol="tcp", port=port, mode=image.mode) for port in image.tcp),
            *(Listener(protocol="udp", port=port, mode=_udp(image)) for port in image.udp),
        ]
    else:
        listeners = _declared(container, "http")
        # what it would serve is not known; the command itself may be a server
        if image is None and not listeners and container.command:
            return Server((), words)
    return Server(_distinct(listeners))


def _udp(image: _Image) -> str:
    return "dns" if image.mode == "dns" else "echo"


def _declared(container: Container, mode: str) -> list[Listener]:
    found = []
    for port in container.ports:
        protocol = port.protocol.lower()
        kind = mode if protocol == "tcp" or mode == "dns" else "echo"
        found.append(Listener(protocol=protocol, port=port.number, mode=kind))
    return found


def _distinct(listeners: Iterable[Listener]) -> tuple[Listener, ...]:
    # a port may be declared twice: the last one counts
    return tuple({(item.protocol, item.port): item for item in listeners}.values())


def _option(words: tuple[str, ...], name: str) -> str | None:
    for number, word in enumerate(words):
        plain = word.lstrip("-")
        if plain.startswith(f"{name}="):
            return plain.partition("=")[2].strip("\"'")
        if plain == name and number + 1 < len(words):
            return words[number + 1]
    return None


def _port(words: tuple[str, ...], name: str, default: int) -> int:
    """Return the port that an option names, -1 for none; ``HOST:PORT`` names one, too."""
    given = _option(words, name)
    if not given or given == "-1":
        return -1 if given else default
    return _number(f"--{name}", given.rpartition(":")[2])


def _number(what: str, word: str) -> int:
    # bounded here: bind() would raise an OverflowError, and end all of the pod's containers
    if not word.isdecimal() or int(word) >= 1 << 16:
        raise InputError(f"{what}={word}: no port", hint="write a number up to 65535")
    return int(word)


def _agnhost(words: tuple[str, ...], container: Container) -> list[Listener]:
    """Mimic the sub-commands that network tests use.

    Source: kubernetes ``test/images/agnhost`` (netexec, serve-hostname, porter, connect, pause).
    """
    verb = next(
        (w for w in words if w in ("netexec", "serve-hostname", "porter", "pause", "dns")), ""
    )
    if verb == "netexec":
        # agnhost's own defaults; SCTP is off
        found = [Listener(protocol="tcp", port=_port(words, "http-port", 8080))]
        udp = _port(words, "udp-port", 8081)
        if udp > 0:
            found.append(Listener(protocol="udp", port=udp, mode="echo"))
        sctp = _port(words, "sctp-port", -1)
        if sctp > 0:
            found.append(Listener(protocol="sctp", port=sctp, mode="echo"))
        return found
    if verb == "serve-hostname":
        found = []
        if "--http=false" not in words:
            found.append(Listener(protocol="tcp", port=_port(words, "port", 9376)))
        if "--udp" in words:
            found.append(Listener(protocol="udp", port=9376, mode="echo"))
        return found
    if verb == "porter":
        return _porter(container)
    return _declared(container, "http")


def _porter(container: Container) -> list[Listener]:
    # one environment variable per port: SERVE_PORT_80=..., SERVE_SCTP_PORT_80=...
    found = []
    for name, value in container.env:
        match = re.match(r"SERVE_(?:(TLS|SCTP|UDP)_)?PORT_(\d+)\Z", name)
        if match:
            protocol = {"SCTP": "sctp", "UDP": "udp"}.get(match[1] or "", "tcp")
            mode = "http" if protocol == "tcp" else "echo"
            port = _number(name, match[2])
            found.append(Listener(protocol=protocol, port=port, mode=mode, body=value + "\n"))
    return found or _declared(container, "http")


def _http_echo(words: tuple[str, ...]) -> list[Listener]:
    text = _option(words, "text") or "hello"
    return [Listener(protocol="tcp", port=_port(words, "listen", 5678), body=text + "\n")]


def listeners_of(pod: PodObject) -> tuple[Listener, ...]:
    """Return everything a pod serves.

    Raises:
        InputError: two of its containers serve one port, or an option names none.
    """
    found: dict[tuple[str, int], Listener] = {}
    for container in pod.spec.containers:
        for listener in server_of(container).listeners:
            key = listener.protocol, listener.port
            if key in found:
                raise InputError(
                    f"pod {pod.meta.title!r}: two containers serve port "
                    f"{listener.port}/{listener.protocol}",
                    hint="containers of a pod share its ports: change one of them",
                )
            found[key] = listener
    return tuple(found.values())
