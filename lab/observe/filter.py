"""A small language that says which packets are wanted: ``pod == client and not delivered``.

A word about a hop is true of a packet that met it anywhere on its way; ``!=`` and ``not`` are true
of a packet that met it nowhere. The grammar::

    filter  = term {"or" term}           "||" for or, "&&" for and, "!" for not
    term    = factor {"and" factor}
    factor  = "not" factor | "(" filter ")" | test
    test    = FLAG | ["inner" | "outer"] FIELD ["==" | "!="] VALUE
            | ["inner" | "outer"] FIELD "in" "(" VALUE {"," VALUE} ")"
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from lab.errors import InputError
from lab.names import did_you_mean
from lab.observe.select import FIELDS, FLAGS, NOWHERE, Asked, Known, Value
from lab.trace import Trace

_BLANK = re.compile(r"\s*")
_WORD = re.compile(r"[A-Za-z_][\w-]*")
_VALUE = re.compile(r"\"[^\"]*\"|'[^']*'|[^\s(),!&|]+")
_SIGN = re.compile(r"==|!=|=|&&|\|\||[!(),]")
_OR, _AND, _NOT = frozenset({"or", "||"}), frozenset({"and", "&&"}), frozenset({"not", "!"})
_LAYERS = frozenset({"inner", "outer"})
_EXAMPLE = "for example: pod == client and drop_reason == POLICY and inner dst 10.0.2.10"


@dataclass(frozen=True, slots=True)
class Test:
    """One statement about a packet: a field that has one of these values somewhere on its way."""

    asked: Asked
    values: tuple[Value, ...]

    def matches(self, trace: Trace) -> bool:
        """Whether it is true of a packet."""
        return self.asked.matches(trace, self.values)


@dataclass(frozen=True, slots=True)
class Not:
    """The contrary of a statement."""

    part: Node

    def matches(self, trace: Trace) -> bool:
        """Whether it is true of a packet."""
        return not self.part.matches(trace)


@dataclass(frozen=True, slots=True)
class All:
    """Every part is true; of no parts: true."""

    parts: tuple[Node, ...]

    def matches(self, trace: Trace) -> bool:
        """Whether it is true of a packet."""
        return all(part.matches(trace) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Either:
    """At least one part is true."""

    parts: tuple[Node, ...]

    def matches(self, trace: Trace) -> bool:
        """Whether it is true of a packet."""
        return any(part.matches(trace) for part in self.parts)


Node = Test | Not | All | Either


@dataclass(frozen=True, slots=True)
class Filter:
    """A parsed filter; the empty one takes every packet.

    Attributes:
        text: as it was written.
        root: its outermost statement.
    """

    text: str = ""
    root: Node = All(())

    def matches(self, trace: Trace) -> bool:
        """Whether a packet is wanted."""
        return self.root.matches(trace)

    def needed(self) -> Iterator[Test]:
        """Yield the tests that are true of every packet wanted, for narrowing early."""
        todo = [self.root]
        while todo:
            node = todo.pop()
            if isinstance(node, All):
                todo += node.parts
            # what stands below `or` or `not` is not true of every packet
            elif isinstance(node, Test):
                yield node


def parse_filter(text: str, known: Known = NOWHERE) -> Filter:
    """Return the filter that ``text`` says.

    Args:
        text: in the language above; empty or blank takes everything.
        known: names of a lab: a pod that it does not have is a mistake, labels become numbers.

    Raises:
        InputError: it does not parse; the message marks the place with a caret.
    """
    if not text.strip():
        return Filter()
    parser = _Parser(text, known)
    root = parser.either()
    parser.end()
    return Filter(text, root)


class _Parser:
    def __init__(self, text: str, known: Known) -> None:
        # one line, so that a caret below it can point at a mistake
        self.text = " ".join(text.splitlines())
        self.known = known
        self.at = 0
        self.blanks()

    def blanks(self) -> None:
        found = _BLANK.match(self.text, self.at)
        assert found is not None
        self.at = found.end()

    def look(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self.text, self.at)
        return found.group() if found else ""

    def take(self, word: str) -> None:
        self.at += len(word)
        self.blanks()

    def taken(self, words: frozenset[str]) -> bool:
        """Take the next word or sign if it is one of these."""
        # whole words: `order` is no `or` with `der` behind it
        for pattern in (_WORD, _SIGN):
            if (found := self.look(pattern)).lower() in words and found:
                self.take(found)
                return True
        return False

    def either(self) -> Node:
        parts = [self.all()]
        while self.taken(_OR):
            parts.append(self.all())
        return parts[0] if len(parts) == 1 else Either(tuple(parts))

    def all(self) -> Node:
        parts = [self.factor()]
        while self.taken(_AND):
            parts.append(self.factor())
        return parts[0] if len(parts) == 1 else All(tuple(parts))

    def factor(self) -> Node:
        if self.taken(_NOT):
            return Not(self.factor())
        if self.taken(frozenset({"("})):
            inside = self.either()
            self.need(")")
            return inside
        return self.test()

    def test(self) -> Node:
        begun, word = self.at, self.look(_WORD).lower()
        if not word:
            raise self.wrong(
                "a field is missing here" if self.at == len(self.text) else "this is no field",
                self.at,
            )
        if word in FLAGS:
            self.take(word)
            return Test(FLAGS[word], ())
        layer = ""
        if word in _LAYERS:
            layer = word
            self.take(word)
            begun, word = self.at, self.look(_WORD).lower()
        field = FIELDS.get(word)
        if field is None:
            raise self.wrong(
                f"{word!r} is no field" if word else "a field is missing here",
                begun,
                length=len(word),
                hint=did_you_mean(word, [*FIELDS, *FLAGS]),
            )
        if layer and not field.layered:
            raise self.wrong(
                f"{layer!r} says nothing about {word!r}",
                begun,
                length=len(word),
                hint="inner and outer go with src, dst, host, sport, dport, port",
            )
        self.take(word)
        return self.rest(field.of(layer))

    def rest(self, asked: Asked) -> Node:
        if self.taken(frozenset({"in"})):
            self.need("(")
            values = [self.value(asked)]
            while self.taken(frozenset({","})):
                values.append(self.value(asked))
            self.need(")")
            return Test(asked, tuple(values))
        if self.taken(frozenset({"!="})):
            return Not(Test(asked, (self.value(asked),)))
        self.taken(frozenset({"==", "="}))
        return Test(asked, (self.value(asked),))

    def value(self, asked: Asked) -> Value:
        begun, word = self.at, self.look(_VALUE)
        if not word:
            raise self.wrong(f"a value of {asked.name!r} is missing here", begun)
        try:
            value = asked.read(word.strip("'\""), self.known)
        except InputError as error:
            raise self.wrong(error.message, begun, length=len(word), hint=error.hint) from None
        self.take(word)
        return value

    def need(self, sign: str) -> None:
        if not self.taken(frozenset({sign})):
            raise self.wrong(f"{sign!r} is missing here", self.at)

    def end(self) -> None:
        if self.at < len(self.text):
            found = self.look(_VALUE) or self.text[self.at]
            raise self.wrong("'and' or 'or' is missing before this", self.at, length=len(found))

    def wrong(self, what: str, at: int, *, length: int = 1, hint: str = "") -> InputError:
        mark = " " * at + "^" * max(length, 1)
        return InputError(f"filter: {what}\n  {self.text}\n  {mark}", hint=hint or _EXAMPLE)
