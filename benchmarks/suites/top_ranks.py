"""The users' ranks as far as NDCG@10 needs them, small enough for a record.

``{task: {"users": checksum of which, SYSTEM: text}}``: a letter for each user, 0 where the target is not
among the first ten and 1 to 9 and A for its rank, packed by zlib and base64.
"""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

LETTERS = "0123456789A"
K = 10
USERS = "users"


def top_ranks(ranks: dict[str, Any], phrases: str = "unseen") -> dict[str, dict[str, str]]:
    """Pack what a run's ``ranks.json`` holds of one kind of phrases."""
    return {
        task: {
            USERS: f"{zlib.crc32(np.array(part['rows'], dtype='<i8').tobytes()):08x}",
            **{system: pack(values) for system, values in part["ranks"].items()},
        }
        for task, part in ranks[phrases].items()
    }


def pack(ranks: Iterable[float]) -> str:
    """One text for the ranks of all users; half a rank counts as the worse one, as in the metrics."""
    letters = "".join(LETTERS[math.ceil(r)] if math.ceil(r) <= K else LETTERS[0] for r in ranks)
    return base64.b64encode(zlib.compress(letters.encode(), 9)).decode()


def unpack(text: str) -> list[float]:
    """The ranks of a packed text; infinity where the target is not among the first ten."""
    letters = zlib.decompress(base64.b64decode(text)).decode()
    return [LETTERS.index(letter) or math.inf for letter in letters]


def over_seeds(records: Sequence[dict[str, Any]], task: str) -> dict[str, np.ndarray]:
    """By system, ranks ``[seeds, users]`` of those that all records have; empty if they lack ranks.

    Records that were asked of different users cannot be put together: empty, too.
    """
    parts = [record.get("top_ranks", {}).get(task, {}) for record in records]
    if not parts or len({part.get(USERS) for part in parts}) > 1 or USERS not in parts[0]:
        return {}
    common = [name for name in parts[0] if name != USERS and all(name in part for part in parts)]
    return {name: np.array([unpack(part[name]) for part in parts]) for name in common}
