"""Files of the text cache: two tensors that were made of a list of texts."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Iterable
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, uint8

from recbole_dpr.files import replacing

logger = logging.getLogger(__name__)

NAMES = ("first", "second")


def read(path: Path) -> tuple[Tensor, Tensor] | None:
    """Return what `write` kept, or None if it is not there or damaged."""
    try:
        if not path.is_file():
            return None
        with safe_open(path, framework="pt") as file:
            # Cloned: the file's own pages may go away under a tensor that still points at them.
            first, second = (file.get_tensor(name).clone() for name in NAMES)
            if file.metadata()["crc32"] != _checksum((first, second)):
                raise ValueError("checksum differs")
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        logger.warning(
            "Damaged or closed file in the text cache, encoding again: %s (%s)", path, error
        )
        return None
    return first, second


def write(path: Path, first: Tensor, second: Tensor) -> None:
    """Write both, whole or not at all; a cache may also fail, with a warning."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        metadata = {"crc32": _checksum((first, second))}
        with replacing(path) as temporary:
            save_file(dict(zip(NAMES, (first, second), strict=True)), temporary, metadata)
    except (SafetensorError, OSError) as error:
        logger.warning("Text cache not written, carrying on without it: %s (%s)", path, error)


def _checksum(tensors: Iterable[Tensor]) -> str:
    return " ".join(str(zlib.crc32(t.view(uint8).numpy().data)) for t in tensors)
