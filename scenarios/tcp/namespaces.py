"""Two network namespaces share nothing: the same port, the same device name, different worlds."""

from lab import scenario
from lab.wire import Look, Medium, TwoHosts

hosts = TwoHosts(medium=Medium.VETH)
PORT = 8080


@scenario(hosts)
def namespaces(lab):
    """Both hosts have an eth0 and a server on port 8080; a veth pair is their only link."""
    ours, theirs = lab.client.socket(), lab.server.socket()
    with ours, theirs:
        for raw in (ours, theirs):
            raw.bind(("0.0.0.0", PORT))
            raw.listen()
        lab.check("both hosts listen on the same port", ours.getsockname() == theirs.getsockname())
    inside = lab.server.socket()
    with inside:
        inside.bind(("127.0.0.1", PORT))
        inside.listen()
        outside = lab.client.socket()
        with outside:
            refused = outside.connect_ex(("127.0.0.1", PORT))
        lab.check("one host's loopback is not the other's", refused != 0)
    for host in (lab.client, lab.server):
        lab.check(f"the {host.name} has lo and eth0 only", host.devices() == ("lo", "eth0"))
    client, server = lab.connect()
    lab.deliver(client, server, 1000)
    lab.check("through the veth pair they reach each other", server.intact)
    lab.picture(
        Look.SEQUENCE,
        "A veth pair is the only way from one namespace to the other",
        lab.recording(),
        note="Both have an eth0, a loopback and a server on port 8080; they share only this link.",
    )
    lab.remove_device(lab.server)
    lab.check("take one end away, and the other is gone", lab.client.devices() == ("lo",))
    lab.exactly("devices", lab.client.devices())
