"""The pods of the conformance suite: three clients, two echo servers, one place outside."""

from __future__ import annotations

NAMESPACE = "cilium-test"
NODE_PORTS = {"echo-same-node": 30081, "echo-other-node": 30082}


def _client(name: str, node: str, extra: str = "") -> str:
    return f"""---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {NAMESPACE}, labels: {{kind: client, name: {name}{extra}}}}}
spec:
  nodeName: {node}
  containers: [{{name: c, image: alpine-curl}}]
"""


def _echo(name: str, node: str) -> str:
    return f"""---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {NAMESPACE}, labels: {{kind: echo, name: {name}}}}}
spec:
  nodeName: {node}
  serviceAccountName: {name}
  containers:
  - name: c
    image: json-mock
    ports: [{{name: http-8080, containerPort: 8080}}]
---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {NAMESPACE}}}
spec:
  type: NodePort
  selector: {{name: {name}}}
  ports: [{{port: 8080, nodePort: {NODE_PORTS[name]}}}]
"""


MANIFESTS = (
    f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: {NAMESPACE}}}\n"
    + _client("client", "alpha")
    + _client("client2", "alpha", ", other: client")
    + _client("client3", "beta")
    + _echo("echo-same-node", "alpha")
    + _echo("echo-other-node", "beta")
)
