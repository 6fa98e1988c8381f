"""Which records of a recording that goes on belong to packets that are complete."""

from __future__ import annotations

from lab.observe.identify import journeys
from lab.observe.mind import entries
from lab.observe.names import Names
from lab.observe.records import MindRecord, Record

_NOTE_SLACK_NS = 1_000_000
"""The longest that a datapath program runs between its hook and its last note."""


def split(
    records: list[Record], notes: list[MindRecord], names: Names, before_ns: int
) -> tuple[list[Record], list[MindRecord], list[Record], list[MindRecord]]:
    """Part what belongs to packets last seen before a moment from the rest.

    Returns:
        Records and notes of complete packets, then records and notes to keep.
    """
    told = entries(notes, names)
    synthetic = {id(record) for record in told}
    keep: list[Record] = []
    done: list[Record] = []
    for journey in journeys([*records, *told]):
        real = [record for record in journey.records if id(record) not in synthetic]
        (keep if journey.last_ns >= before_ns else done).extend(real)
    attached = {_key(record) for record in (*keep, *done)}
    # a route is asked for before there is a packet: its packet may come with the next records
    keep += [one for one in records if _key(one) not in attached and one.ns >= before_ns]
    oldest = min((record.ns for record in keep), default=before_ns) - _NOTE_SLACK_NS
    return (
        done,
        [note for note in notes if note.ns < before_ns],
        keep,
        [note for note in notes if note.ns >= oldest],
    )


def _key(record: Record) -> tuple[int, int, int]:
    return (record.ns, record.cpu, record.kind)
