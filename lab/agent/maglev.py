"""Maglev look-up tables: every node that knows the same backends sends a flow to the same one.

Source: Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer" (NSDI 2016),
section 3.4.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping


def table(backends: Mapping[str, int], size: int) -> tuple[int, ...]:
    """Return ``size`` backend ids: each backend has almost the same share.

    A backend that comes or goes moves little more than its own share of the entries.

    Args:
        backends: name of a backend, the same on every node -> its id; at least one.
        size: a prime, larger than the number of backends.
    """
    # the same table on every node, in whatever order backends came
    names = sorted(backends)
    offsets, skips = [], []
    for name in names:
        digest = hashlib.sha256(name.encode()).digest()
        offsets.append(int.from_bytes(digest[:8], "big") % size)
        # 1 at least and below a prime: the walk then visits every slot
        skips.append(int.from_bytes(digest[8:16], "big") % (size - 1) + 1)
    entries = [-1] * size
    place = [0] * len(names)
    filled = 0
    while True:
        for number in range(len(names)):
            slot = (offsets[number] + place[number] * skips[number]) % size
            while entries[slot] >= 0:
                place[number] += 1
                slot = (offsets[number] + place[number] * skips[number]) % size
            entries[slot] = number
            place[number] += 1
            filled += 1
            if filled == size:
                return tuple(backends[names[entry]] for entry in entries)
