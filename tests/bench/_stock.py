"""Tables that hold any share of their entries, drawn anew each time."""

from __future__ import annotations

import random
from collections.abc import Sequence

from lab.kernel.bpfmap import BpfMap


class Stock:
    """The entries that tables can hold; what is in them now will always be there.

    Args:
        maps: the tables, owned elsewhere.
    """

    def __init__(self, *maps: BpfMap) -> None:
        self._maps = maps
        self._always = [{key for key, _ in table.items()} for table in maps]
        self._more: list[list[tuple[bytes, bytes]]] = [[] for _ in maps]
        self._draw = random.Random(1)

    def learn(self) -> None:
        """Take what has come into the tables since the beginning as what there is."""
        for number, (table, always) in enumerate(zip(self._maps, self._always, strict=True)):
            self._more[number] = [item for item in table.items() if item[0] not in always]

    def give(self, items: Sequence[tuple[bytes, bytes]]) -> None:
        """Let the first table's stock be these entries."""
        self._more[0] = list(items)

    def set_share(self, share: float) -> None:
        """Let this share of the stock be in its tables, beside what was always there."""
        for table, more in zip(self._maps, self._more, strict=True):
            chosen = self._draw.sample(more, round(len(more) * share))
            for key in {key for key, _ in more}.difference(key for key, _ in chosen):
                table.delete(key)
            if chosen:
                table.update_many(chosen)
