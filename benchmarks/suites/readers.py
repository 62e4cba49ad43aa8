"""Which readers the prompts of a record were read by: those that ship change from version to version."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from recbole_dpr.model.pretrained import FILES
from recbole_dpr.readers import kind_of, reader_names
from suites.figures import is_steered
from suites.records import Record, Records


def readers_of(options: Mapping[str, Any]) -> dict[str, str]:
    """A checksum of each reader that ships, of those that the options of a run name; by name."""
    config = {"reader": None, "text_encoder": None, **options}
    names = [name or kind_of(name, config) for name in reader_names(config)]
    return {name: checksum(FILES[name]) for name in names if name in FILES}


@cache
def checksum(path: Path) -> str:
    """Eight hexadecimal digits of a file's content."""
    return hashlib.blake2b(path.read_bytes(), digest_size=4).hexdigest()


def read_by_others(records: Records) -> list[str]:
    """The variants of which a record was read by other readers than those that ship now, with the seeds."""
    found = []
    for name, of_name in records.items():
        asked = is_steered(of_name) or name.endswith("-requests")
        seeds = [str(record["seed"]) for record in of_name if asked and _is_of_others(record)]
        if seeds:
            found.append(f"{name} ({', '.join(seeds)})")
    return found


def _is_of_others(record: Record) -> bool:
    now = readers_of(record.get("options", record))
    return bool(now) and record.get("readers") != now
