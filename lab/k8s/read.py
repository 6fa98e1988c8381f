"""Files and texts of manifests -> objects; all of them or none."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from lab.errors import InputError
from lab.k8s import cilium, policies, services, workloads
from lab.k8s.configuration import is_configuration, read_configuration
from lab.k8s.objects import KubernetesObject, Objects, key_of, kind_of
from lab.k8s.tree import Item, documents, words
from lab.names import did_you_mean

_Reader = Callable[[Item], KubernetesObject | tuple[KubernetesObject, ...]]

_READERS: dict[tuple[str, str], _Reader] = {
    ("v1", "Namespace"): workloads.read_namespace,
    ("v1", "Node"): workloads.read_node,
    ("v1", "Pod"): workloads.read_pod,
    ("v1", "Service"): services.read_service,
    ("v1", "Endpoints"): services.read_endpoints,
    ("discovery.k8s.io/v1", "EndpointSlice"): services.read_endpoint_slice,
    ("apps/v1", "Deployment"): workloads.read_controller,
    ("apps/v1", "ReplicaSet"): workloads.read_controller,
    ("apps/v1", "StatefulSet"): workloads.read_controller,
    ("apps/v1", "DaemonSet"): workloads.read_controller,
    ("networking.k8s.io/v1", "NetworkPolicy"): policies.read_network_policy,
    ("cilium.io/v2", "CiliumNetworkPolicy"): cilium.read_cilium_policy,
    ("cilium.io/v2", "CiliumClusterwideNetworkPolicy"): cilium.read_cilium_policy,
}

_LEFT_OUT = words(
    "ConfigMap Secret ServiceAccount Role RoleBinding ClusterRole ClusterRoleBinding "
    "PersistentVolume PersistentVolumeClaim StorageClass PodDisruptionBudget PriorityClass "
    "HorizontalPodAutoscaler ResourceQuota LimitRange CustomResourceDefinition Ingress "
    "IngressClass Event Lease Job CronJob"
)
"""Kinds of real manifests that are no part of a lab's network: noted and left out."""

SUFFIXES = (".yaml", ".yml", ".json")


def read_files(paths: Iterable[Path | str]) -> Objects:
    """Read files, folders of files, or ``-`` for standard input.

    Raises:
        InputError: a path that is not there or not readable, or anything :func:`read_text` refuses.
    """
    found = Objects()
    for path in paths:
        for file in _files(Path(path)):
            if str(file) == "-":
                found = _join(found, read_text(sys.stdin.read(), "standard input"))
                continue
            try:
                text = file.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise InputError(
                    f"{file} cannot be read: {error}", hint="give YAML files or folders of them"
                ) from None
            found = _join(found, read_text(text, str(file)))
    return found


def _files(path: Path) -> list[Path]:
    if str(path) == "-" or not path.is_dir():
        return [path]
    files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
    if not files:
        raise InputError(f"{path} holds no manifests", hint="expected " + ", ".join(SUFFIXES))
    return files


def read_text(text: str, file: str = "manifest") -> Objects:
    """Read all documents of a text; Lists are opened.

    Raises:
        InputError: ``FILE:LINE: PATH: problem`` with a suggestion, for the first thing wrong.
    """
    read = [_read_item(item) for document in documents(text, file) for item in _open_list(document)]
    items = tuple(item for one in read for item in one.items)
    notes = tuple(note for one in read for note in one.notes)
    settings = tuple(setting for one in read for setting in one.settings)
    return _join(Objects(), Objects(items, notes, settings))


def _read_item(item: Item) -> Objects:
    kind = item.mapping().get("kind")
    # an unknown kind is a slip of the pen until shown otherwise; only known ones are left out
    if kind is None or kind.value not in _LEFT_OUT:
        return Objects(_read_one(item))
    if is_configuration(item):
        return read_configuration(item)
    return Objects(notes=(f"{item.file}:{item.line}: {kind.value} is no part of the lab",))


def _open_list(document: Item) -> Iterator[Item]:
    kind = document.mapping().get("kind")
    # what `kubectl get -o yaml` prints is one List of everything
    if kind is None or not str(kind.value).endswith("List"):
        yield document
        return
    fields = document.fields("apiVersion", "kind", "metadata", "items")
    yield from (fields["items"].items() if "items" in fields else ())


def _read_one(item: Item) -> tuple[KubernetesObject, ...]:
    fields = item.mapping()
    for name in ("apiVersion", "kind"):
        if name not in fields:
            item.fail(f"{name} is missing", "every object begins with apiVersion and kind")
    version, kind = fields["apiVersion"].text(), fields["kind"].text()
    reader = _READERS.get((version, kind))
    if reader is None:
        versions = [known for known, name in _READERS if name == kind]
        if versions:
            fields["apiVersion"].fail(
                f"{kind} of {version!r} is not read", did_you_mean(version, versions)
            )
        known = sorted({name for _, name in _READERS})
        fields["kind"].fail(f"kind {kind!r} is not read", did_you_mean(kind, known))
    made = reader(item)
    return made if isinstance(made, tuple) else (made,)


def _join(first: Objects, second: Objects) -> Objects:
    seen = {key_of(item): item for item in first.items}
    for item in second.items:
        key = key_of(item)
        if key in seen:
            raise InputError(
                f"{item.meta.source}: {kind_of(item)} {item.meta.title!r} is there twice",
                hint=f"the first is at {seen[key].meta.source}; rename or remove one",
            )
        seen[key] = item
    return Objects(
        first.items + second.items,
        first.notes + second.notes,
        first.settings + second.settings,
    )
