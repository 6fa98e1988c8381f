"""What every name of the datapath means: texts from a data file, facts from the sources.

Numbers, names and places are read from ``bpf/`` when asked, never typed twice; the prose is in
``data/explanations.toml``.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from lab.datapath.build import SOURCES
from lab.errors import InputError, UnsupportedError
from lab.kernel.tracing import drop_reasons
from lab.names import did_you_mean
from lab.observe.causes import KERNEL
from lab.trace import Evidence, Step

TEXTS = Path(__file__).parent / "data" / "explanations.toml"

_SECTION = re.compile(r'^SEC\("(?P<section>[^"]+)"\)\s+int\s+(?P<name>\w+)')
_TAIL = re.compile(r'^TAIL_CALL\("(?P<slot>\w+/\w+)"\)\s+int\s+(?P<name>\w+)')
_MAP = re.compile(r'^\}\s*(?P<name>\w+)\s+SEC\("\.maps"\)')
_DROP = re.compile(r"^\s*DROP_(?P<name>\w+)\s*=\s*-(?P<number>\d+),\s*/\*\s*(?P<words>.*?)\s*\*/")
_USE = re.compile(r"\bDROP_(\w+)")
_POINT = re.compile(r"^\s*TRACE_(?P<name>(?:TO|FROM)_\w+)\s*=\s*(?P<number>\d+)")
# what a pin's name ends with where each endpoint or device has a map of its own
_PER_OBJECT = re.compile(r"_(hostns_|netdev_|overlay_|xdp_)?\d{1,5}$")
_USES_SHOWN = 6


@dataclass(frozen=True, slots=True)
class Entry:
    """One explanation.

    Attributes:
        kind: hook, tail call, map, drop reason, step, trace point, evidence or word.
        name: as the datapath spells it.
        number: drop reason, step or slot; empty where there is none.
        title: one clause.
        text: one paragraph.
        where: attach point or kernel function; may be empty.
        sources: places in bpf/ as ``file:line``.
        see: names to go on with.
        aliases: other spellings that find it.
    """

    kind: str
    name: str
    text: str
    number: str = ""
    title: str = ""
    where: str = ""
    sources: tuple[str, ...] = ()
    see: tuple[str, ...] = ()
    aliases: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Declared:
    """A name as the sources declare it, with its place and whatever the line says besides."""

    name: str
    place: str
    facts: Mapping[str, str]


def find(word: str) -> tuple[Entry, ...]:
    """Return what a word may mean; more than one where a name is used twice.

    Args:
        word: a hook, C function, map (also with its object's suffix), drop reason (name or
            number; of the kernel's own the name), step (1 to 19), tail-call slot
            (``cilium_calls/7``), trace point or word.

    Raises:
        InputError: nothing has this name; the hint has the nearest.
    """
    names = index()
    kernel = {_normal(entry.name): entry for entry in kernel_reasons()}
    for spelling in _spellings(word):
        reason = kernel.get(spelling.removeprefix("skb-drop-reason-"))
        if found := (*names.get(spelling, ()), *((reason,) if reason else ())):
            return found
    known = {entry.name for entries in (*names.values(), kernel.values()) for entry in entries}
    raise InputError(f"nothing is called {word!r}", hint=_nearest(word, known))


def index() -> Mapping[str, tuple[Entry, ...]]:
    """Return every explanation by every spelling, in lower case with hyphens."""
    names: dict[str, tuple[Entry, ...]] = {}
    for entry in entries():
        for key in {_normal(spelling) for spelling in (entry.name, *entry.aliases)}:
            names[key] = (*names.get(key, ()), entry)
    return names


@cache
def entries() -> tuple[Entry, ...]:
    """Return every explanation; hooks, maps and drop reasons as the sources of bpf/ have them."""
    texts = tomllib.loads(TEXTS.read_text())
    return (
        *_hooks(texts["hook"]),
        *_calls(texts["call"]),
        *_maps(texts["map"]),
        *_drops(texts["drop"]),
        *_points(texts["point"]),
        *_steps(texts["step"]),
        *(Entry("evidence", grade.word, f"{grade.means}.".capitalize()) for grade in Evidence),
        *(_plain("word", name, text) for name, text in texts["word"].items()),
    )


@cache
def kernel_reasons() -> tuple[Entry, ...]:
    """Return the running kernel's own drop reasons, and counters that stand in for one.

    Without BTF the kernel tells none of the former.
    """
    try:
        numbers = drop_reasons()
    except UnsupportedError:
        numbers = {}
    counted = (
        Entry(
            "kernel's counter",
            name,
            f"{known.what[:1].upper()}{known.what[1:]}. {known.change}",
            where="/proc/net/xfrm_stat: IPsec counts where it gives a packet up without a reason",
        )
        for name, known in KERNEL.items()
        if name.startswith("Xfrm")
    )
    return *counted, *(
        Entry(
            "kernel's drop reason",
            name,
            f"{known.what[:1].upper()}{known.what[1:]}. {known.change}"
            if (known := KERNEL.get(name))
            else "One of the kernel's own; its header include/net/dropreason-core.h describes it.",
            number=str(number),
            where="a ladder shows the function that freed the packet, and lab why what to change",
        )
        for number, name in sorted(numbers.items())
    )


def declared(pattern: re.Pattern[str], *folders: str) -> Iterator[Declared]:
    """Yield each line of the datapath's sources that matches, with its place."""
    for folder in folders or (".", "lib"):
        for path in sorted((SOURCES / folder).glob("*.[ch]")):
            for number, line in enumerate(path.read_text().splitlines(), 1):
                if match := pattern.match(line):
                    place = f"bpf/{path.relative_to(SOURCES)}:{number}"
                    yield Declared(match["name"], place, match.groupdict())


def _plain(kind: str, name: str, text: Mapping[str, Any], **more: Any) -> Entry:  # noqa: ANN401
    return Entry(
        kind,
        name,
        " ".join(text["text"].split()),
        title=text["title"],
        where=text.get("where", ""),
        see=tuple(text["see"]),
        **more,
    )


def _hooks(texts: Mapping[str, Any]) -> Iterator[Entry]:
    found: dict[str, list[Declared]] = {}
    for each in declared(_SECTION):
        found.setdefault(each.facts["section"].rpartition("/")[2], []).append(each)
    # a tail call and attached nowhere, but spoken of as a hook
    found["handle_policy"] = [d for d in declared(_TAIL) if d.name == "handle_policy"]
    for name, places in found.items():
        if name in texts:
            yield _plain(
                "hook",
                name,
                texts[name],
                sources=tuple(d.place for d in places),
                aliases=tuple(d.name for d in places),
            )


def _calls(texts: Mapping[str, str]) -> Iterator[Entry]:
    slots: dict[str, list[Declared]] = {}
    for each in declared(_TAIL):
        slots.setdefault(each.facts["slot"], []).append(each)
    for slot, places in slots.items():
        number = slot.rpartition("/")[2]
        if number in texts:
            yield Entry(
                "tail call",
                slot,
                texts[number],
                number=number,
                title=", ".join(dict.fromkeys(d.name for d in places)),
                sources=tuple(d.place for d in places),
                see=("cilium_calls",),
                aliases=tuple(d.name for d in places),
            )


def _maps(texts: Mapping[str, Any]) -> Iterator[Entry]:
    for each in declared(_MAP):
        if each.name in texts:
            yield _plain("map", each.name, texts[each.name], sources=(each.place,))


def _drops(texts: Mapping[str, str]) -> Iterator[Entry]:
    uses: dict[str, list[str]] = {}
    for path in sorted(SOURCES.rglob("*.[ch]")):
        if path.name != "drop_reasons.h":
            for at, line in enumerate(path.read_text().splitlines(), 1):
                for name in _USE.findall(line):
                    uses.setdefault(name, []).append(f"bpf/{path.relative_to(SOURCES)}:{at}")
    for each in declared(_DROP):
        if each.name in texts:
            number, words = each.facts["number"], each.facts["words"]
            yield Entry(
                "drop reason",
                each.name,
                texts[each.name],
                number=number,
                title=words,
                where="" if each.name in uses else "no program of this datapath gives it",
                sources=tuple(uses.get(each.name, ()))[:_USES_SHOWN],
                aliases=(f"DROP_{each.name}", number, f"-{number}", words),
            )


def _points(texts: Mapping[str, str]) -> Iterator[Entry]:
    for each in declared(_POINT):
        if each.name in texts:
            yield Entry(
                "trace point",
                each.name,
                texts[each.name],
                number=each.facts["number"],
                sources=(each.place,),
                aliases=(f"TRACE_{each.name}",),
            )


def _steps(texts: Mapping[str, str]) -> Iterator[Entry]:
    for step in Step:
        yield Entry(
            "step",
            step.title,
            texts[str(step.number)],
            number=str(step.number),
            title=step.does,
            where=f"kernel function {step.function}",
            aliases=(str(step.number), f"step {step.number}", step.name, step.function),
        )


def _normal(word: str) -> str:
    return re.sub(r"[\s_-]+", "-", word.strip().lower())


def _spellings(word: str) -> Iterator[str]:
    yield _normal(word)
    yield _normal(_PER_OBJECT.sub("", word))
    yield _normal(word.removeprefix("cil_"))


def _nearest(word: str, known: set[str]) -> str:
    by_spelling = {_normal(name): name for name in known}
    hint = did_you_mean(_normal(word), by_spelling)
    for spelling, name in by_spelling.items():
        if hint == f"did you mean {spelling!r}?":
            return f"did you mean {name!r}?"
    return "`lab explain` without a word lists everything"
