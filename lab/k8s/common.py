"""What all kinds share: metadata, label selectors, ports."""

from __future__ import annotations

import re

from lab.k8s.objects import Meta
from lab.k8s.tree import Item, words
from lab.names import did_you_mean
from lab.policy.labels import SOURCES
from lab.policy.objects import Operator, Requirement, Selector

TOP_LEVEL = ("apiVersion", "kind", "metadata", "spec", "status")

PROTOCOLS = ("TCP", "UDP", "SCTP")

_META = words(
    "name generateName namespace labels annotations uid resourceVersion generation selfLink "
    "creationTimestamp deletionTimestamp deletionGracePeriodSeconds ownerReferences finalizers "
    "managedFields"
)

# apimachinery's validation: IsQualifiedName, IsDNS1123Subdomain, IsValidPortName
_LABEL_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?\Z")
_LABEL_PREFIX = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?\Z")
_PORT_NAME = re.compile(r"(?=.*[a-z])[a-z0-9]([-a-z0-9]{0,13}[a-z0-9])?\Z")


def read_meta(item: Item | None, document: Item, *, namespaced: bool = True) -> Meta:
    """Read ``metadata`` of an object.

    Raises:
        InputError: it is missing, has no name, or a label that Kubernetes would refuse.
    """
    if item is None:
        document.fail("metadata is missing", "add 'metadata:' with a 'name:'")
    fields = item.fields(*_META)
    if "name" not in fields:
        item.fail("the object has no name", "add 'name:' (generateName needs an API server)")
    if not namespaced and "namespace" in fields:
        fields["namespace"].fail("this kind belongs to no namespace", "remove the line")
    namespace = fields["namespace"].name() if "namespace" in fields else "default"
    return Meta(
        name=fields["name"].name(),
        namespace=namespace if namespaced else "",
        labels=read_labels(fields.get("labels")),
        annotations=texts(fields.get("annotations")),
        source=f"{document.file}:{document.line}",
    )


def texts(item: Item | None) -> dict[str, str]:
    """Read a mapping of text to text; absent means empty."""
    if item is None:
        return {}
    return {key: "" if v.value is None else v.text() for key, v in item.mapping().items()}


def read_labels(item: Item | None) -> dict[str, str]:
    """Read labels of an object.

    Raises:
        InputError: a key or a value that Kubernetes would refuse.
    """
    found = texts(item)
    if item is not None:
        for key, value in found.items():
            check_label(item.mapping()[key], key, value)
    return found


def check_label(item: Item, key: str, value: str) -> None:
    """Refuse a label key or value that Kubernetes would refuse.

    Raises:
        InputError: names the rule.
    """
    prefix, slash, name = key.rpartition("/")
    if not _LABEL_NAME.match(name) or (slash and not _LABEL_PREFIX.match(prefix)):
        item.fail(
            f"{key!r} is no label key",
            "use [PREFIX/]NAME; NAME has at most 63 letters, digits, '-', '_' and '.'",
        )
    if value and not _LABEL_NAME.match(value):
        item.fail(
            f"{value!r} is no label value",
            "use at most 63 letters, digits, '-', '_' and '.', beginning and ending with a letter "
            "or digit",
        )


def read_selector(item: Item, *, sources: bool = False) -> Selector:
    """Read a label selector.

    Args:
        item: ``matchLabels`` and ``matchExpressions``.
        sources: keys may begin with a label source, as in Cilium's objects.

    Raises:
        InputError: an unknown operator, values where none belong, or requirements that no set of
            labels can meet.
    """
    fields = item.fields("matchLabels", "matchExpressions")
    pairs: list[tuple[str, str]] = []
    if "matchLabels" in fields:
        for key, value in fields["matchLabels"].mapping().items():
            text = "" if value.value is None else value.text()
            check_label(value, _bare(key) if sources else key, text)
            pairs.append((key, text))
    expressions = tuple(
        _read_requirement(entry, sources)
        for entry in (fields["matchExpressions"].items() if "matchExpressions" in fields else ())
    )
    selector = Selector(tuple(pairs), expressions)
    _refuse_impossible(item, selector)
    return selector


def _bare(key: str) -> str:
    source, colon, name = key.partition(":")
    # a colon alone proves nothing: only Cilium's own label sources count
    return name if colon and source in SOURCES else key


def _read_requirement(item: Item, sources: bool) -> Requirement:
    fields = item.fields("key", "operator", "values")
    for name in ("key", "operator"):
        if name not in fields:
            item.fail(f"{name} is missing", f"add '{name}:'")
    key = fields["key"].text()
    check_label(fields["key"], _bare(key) if sources else key, "")
    operator = Operator(fields["operator"].choice([known.value for known in Operator]))
    values = tuple(v.text() for v in fields["values"].items()) if "values" in fields else ()
    set_based = operator in (Operator.IN, Operator.NOT_IN)
    if set_based and not values:
        item.fail(f"{operator.value} needs at least one value", "add 'values: [...]'")
    if not set_based and values:
        fields["values"].fail(f"{operator.value} takes no values", "remove 'values'")
    return Requirement(key, operator, values)


def _refuse_impossible(item: Item, selector: Selector) -> None:
    fixed = dict(selector.match_labels)
    present = {key for key, _ in selector.match_labels}
    present |= {
        r.key for r in selector.match_expressions if r.operator in (Operator.IN, Operator.EXISTS)
    }
    for requirement in selector.match_expressions:
        key, value = requirement.key, fixed.get(requirement.key)
        clash = (
            (requirement.operator is Operator.DOES_NOT_EXIST and key in present)
            or (requirement.operator is Operator.IN and value not in (None, *requirement.values))
            or (
                requirement.operator is Operator.NOT_IN
                and value is not None
                and value in requirement.values
            )
        )
        if clash:
            item.fail(
                f"no labels can meet both requirements on {key!r}",
                "remove one of them, or the whole rule",
            )
    # each list may be met by itself, and still no value be in all of them
    for key in {r.key for r in selector.match_expressions}:
        wanted = [
            set(r.values)
            for r in selector.match_expressions
            if r.key == key and r.operator is Operator.IN
        ]
        if len(wanted) > 1 and not set.intersection(*wanted):
            item.fail(
                f"no value of {key!r} is in all of its lists", "remove one of the requirements"
            )


def read_port_name(item: Item) -> str:
    """Read the name of a container port (IANA service name, at most 15 characters).

    Raises:
        InputError: Kubernetes would refuse it.
    """
    word = item.text()
    if not _PORT_NAME.match(word) or "--" in word:
        item.fail(
            f"{word!r} is no port name",
            "use at most 15 lower-case letters, digits and '-', with at least one letter",
        )
    return word


def read_port(item: Item, least: int = 1) -> int | str:
    """Read a port number or the name of a container port.

    Raises:
        InputError: neither.
    """
    if isinstance(item.value, str):
        # YAML: with quotes it is a text, which Kubernetes would take for the name of a container
        # port
        if item.value.isdecimal():
            item.fail(f"the text {item.value!r} where a port number belongs", "remove the quotes")
        return read_port_name(item)
    return item.number(least, 65535)


def read_protocol(item: Item | None) -> str:
    """Read a transport protocol; TCP if absent.

    Raises:
        InputError: an unknown one.
    """
    if item is None:
        return "TCP"
    word = item.text()
    if word not in PROTOCOLS:
        item.fail(f"protocol {word!r} is unknown", did_you_mean(word.upper(), PROTOCOLS))
    return word
