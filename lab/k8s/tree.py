"""YAML with a place for every value: file, line and path, for errors that say where.

The only module that imports yaml. Values stay untyped here; :class:`Item` gives them types on
request and refuses what does not fit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Network, NetmaskValueError
from typing import Any, NoReturn

import yaml

from lab.errors import InputError
from lab.names import did_you_mean

# libyaml's loader is faster, but PyYAML can be built without it
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?\Z")


@dataclass(frozen=True, slots=True)
class Item:
    """One value of a manifest.

    Attributes:
        file: name of the file as the user gave it.
        line: 1-based.
        path: such as ``spec.ingress[0].from``; empty for a document.
        value: ``None``, ``bool``, ``int``, ``float``, ``str``, tuple of items, or dict of items.
    """

    file: str
    line: int
    path: str
    value: Any

    def fail(self, problem: str, hint: str) -> NoReturn:
        """Raise an InputError ``FILE:LINE: PATH: problem``.

        Raises:
            InputError: always.
        """
        where = f"{self.path}: " if self.path else ""
        raise InputError(f"{self.file}:{self.line}: {where}{problem}", hint=hint)

    def fields(self, *known: str) -> dict[str, Item]:
        """Return a mapping's fields that are not null.

        Raises:
            InputError: not a mapping, or a field outside ``known``, with the nearest known one.
        """
        found: dict[str, Item] = self.mapping()
        for name, item in found.items():
            if name not in known:
                item.fail(f"unknown field {name!r}", did_you_mean(name, known))
        return {name: item for name, item in found.items() if item.value is not None}

    def mapping(self) -> dict[str, Item]:
        """Return the value as a mapping.

        Raises:
            InputError: it is something else.
        """
        if not isinstance(self.value, dict):
            self.fail(f"{_kind(self.value)} where a mapping belongs", "write 'field: value' lines")
        found: dict[str, Item] = self.value
        return found

    def items(self) -> tuple[Item, ...]:
        """Return the value as a list.

        Raises:
            InputError: it is something else.
        """
        if not isinstance(self.value, tuple):
            self.fail(f"{_kind(self.value)} where a list belongs", "begin each element with '- '")
        found: tuple[Item, ...] = self.value
        return found

    def text(self) -> str:
        """Return the value as text; numbers and booleans must be quoted.

        Raises:
            InputError: it is something else.
        """
        if not isinstance(self.value, str):
            self.fail(f"{_kind(self.value)} where text belongs", f'quote it: "{self.value}"')
        return self.value

    def number(self, least: int, most: int) -> int:
        """Return the value as an integer within bounds.

        Raises:
            InputError: it is something else, or out of bounds.
        """
        # to Python a truth value is a number, too
        if isinstance(self.value, bool) or not isinstance(self.value, int):
            self.fail(f"{_kind(self.value)} where a number belongs", f"use {least} to {most}")
        if not least <= self.value <= most:
            self.fail(f"{self.value} is out of range", f"use {least} to {most}")
        return self.value

    def truth(self) -> bool:
        """Return the value as a boolean.

        Raises:
            InputError: it is something else.
        """
        if not isinstance(self.value, bool):
            self.fail(f"{_kind(self.value)} where true or false belongs", "write true or false")
        return self.value

    def choice(self, known: Iterable[str]) -> str:
        """Return the value as one of some words.

        Raises:
            InputError: it is another word, with the nearest known one.
        """
        word, words = self.text(), list(known)
        if word not in words:
            self.fail(f"{word!r} is none of the possible values", did_you_mean(word, words))
        return word

    def name(self) -> str:
        """Return the value as a DNS name.

        Raises:
            InputError: Kubernetes would refuse it.
        """
        word = self.text()
        if not _NAME.match(word) or len(word) > 253:
            self.fail(f"{word!r} is no DNS name", "use lower-case letters, digits, '-' and '.'")
        return word

    def cidr(self) -> str:
        """Return the value as an IPv4 network in CIDR notation.

        Raises:
            InputError: it is none, or IPv6.
        """
        word = self.text()
        if ":" in word:
            self.fail(f"{word!r} is IPv6", "the lab's pods have IPv4 addresses only")
        try:
            network = IPv4Network(word, strict=False)
        except (AddressValueError, NetmaskValueError, ValueError) as error:
            self.fail(f"{word!r} is no IPv4 network ({error})", "write it like '10.0.1.0/24'")
        if "/" not in word:
            self.fail(f"{word!r} has no prefix length", f"did you mean '{word}/32'?")
        return str(network)

    def address(self) -> str:
        """Return the value as an IPv4 address.

        Raises:
            InputError: it is none.
        """
        word = self.text()
        try:
            return str(IPv4Address(word))
        except (AddressValueError, ValueError) as error:
            self.fail(f"{word!r} is no IPv4 address ({error})", "write it like '10.0.1.10'")


def words(text: str) -> tuple[str, ...]:
    """Return the words of a text, for lists of known field names."""
    return tuple(text.split())


def _kind(value: object) -> str:
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return f"the boolean {str(value).lower()}"
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, str):
        return f"the text {value!r}"
    return "a list" if isinstance(value, tuple) else "a mapping"


def documents(text: str, file: str) -> Iterator[Item]:
    """Yield the documents of a YAML text that are not empty.

    Raises:
        InputError: the text is no YAML, or a key is written twice.
    """
    loader = _LOADER(text)
    try:
        # nodes instead of values: a value does not know its line
        while loader.check_node():
            item = _convert(loader, loader.get_node(), file, "")
            if item.value is not None:
                yield item
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        problem = getattr(error, "problem", None) or str(error)
        raise InputError(
            f"{file}:{line}: no valid YAML: {problem}",
            hint="check the indentation; use spaces, not tabs",
        ) from None
    finally:
        loader.dispose()


def _convert(loader: yaml.SafeLoader, node: yaml.Node, file: str, path: str) -> Item:
    line = node.start_mark.line + 1
    if isinstance(node, yaml.SequenceNode):
        values = tuple(
            _convert(loader, child, file, f"{path}[{n}]") for n, child in enumerate(node.value)
        )
        return Item(file, line, path, values)
    if isinstance(node, yaml.MappingNode):
        # merge keys (<<)
        loader.flatten_mapping(node)
        found: dict[str, Item] = {}
        for key, child in node.value:
            # as it was written: to YAML 1.1 the key `on` is a truth value
            name = str(key.value)
            item = _convert(loader, child, file, f"{path}.{name}" if path else name)
            # a field is where its name stands, also when its value begins on a later line
            item = Item(file, key.start_mark.line + 1, item.path, item.value)
            if name in found:
                item.fail("written twice", f"remove one; the first is on line {found[name].line}")
            found[name] = item
        return Item(file, line, path, found)
    return Item(file, line, path, loader.construct_object(node))
