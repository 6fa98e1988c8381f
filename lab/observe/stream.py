"""Which records of a recording that goes on belong to packets that are complete."""

from __future__ import annotations

from lab.observe.identify import journeys
from lab.observe.mind import LONGEST_RUN_NS, entries
from lab.observe.names import Names
from lab.observe.records import MindRecord, Record


def split(
    records: list[Record], notes: list[MindRecord], names: Names, before_ns: int
) -> tuple[list[Record], list[MindRecord], list[Record], list[MindRecord]]:
    """Part what belongs to packets last seen before a moment from the rest.

    Returns:
        Records and notes of complete packets, then records and notes to keep.
    """
    complete: set[tuple[int, int, int]] = set()
    going_on: set[tuple[int, int, int]] = set()
    for journey in journeys([*records, *entries(notes, names)]):
        part = complete if journey.last_ns < before_ns else going_on
        part.update(map(_key, journey.records))
    done = [record for record in records if _key(record) in complete]
    # a route is asked for before there is a packet; else what belongs to none is forgotten
    keep = [
        record
        for record in records
        if _key(record) in going_on or (record.ns >= before_ns and _key(record) not in complete)
    ]
    oldest = min((record.ns for record in keep), default=before_ns) - LONGEST_RUN_NS
    return (
        done,
        [note for note in notes if note.ns < before_ns],
        keep,
        [note for note in notes if note.ns >= oldest],
    )


def _key(record: Record) -> tuple[int, int, int]:
    return (record.ns, record.cpu, record.kind)
