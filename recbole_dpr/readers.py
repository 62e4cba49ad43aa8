"""What option `reader` names."""

from __future__ import annotations

from typing import Any

from recbole_dpr.errors import DPRError, did_you_mean

SHIPPED = ("shipped", "large")  # come with the package
LEARNED = ("trained", "pooled")  # in stage 2
NAMES = (*SHIPPED, *LEARNED)
WAY_OUT = f"reader takes one of {', '.join(NAMES)}, or a file that benchmarks/train_reader.py wrote"


def reader_names(config: Any) -> list[str]:
    """The readers that option `reader` names, "" for the default."""
    asked = config["reader"]
    return [str(name) for name in asked] if isinstance(asked, (list, tuple)) else [str(asked or "")]


def reader_kind(config: Any) -> str:
    """Where a run's reader comes from; of several readers the first one's `kind_of`.

    Raises
    ------
    DPRError
        If there is no such reader, or several of which one is learned.
    """
    kinds = [kind_of(name, config) for name in reader_names(config)]
    if not kinds:
        raise DPRError(f"reader=[] names none: {WAY_OUT}")
    if len(kinds) > 1 and {*kinds} & {*LEARNED}:
        raise DPRError(f"readers that decide together come trained: {kinds} do not")
    return kinds[0]


def kind_of(name: str, config: Any) -> str:
    """Where a reader comes from: "shipped", "file", "trained" or "pooled".

    The first two come trained, each with the text encoder that it reads; "trained" and "pooled" are learned in
    stage 2 from what `text_encoder` makes of prompts.

    Raises
    ------
    DPRError
        If there is no such reader.
    """
    if not name:
        return "trained" if config["text_encoder"] else "shipped"
    if name == "shipped" or name in LEARNED:
        return name
    if name in SHIPPED or name.endswith(".safetensors"):
        return "file"
    raise DPRError(f"there is no reader {name!r}{did_you_mean(name, NAMES)}; {WAY_OUT}")


def learns_to_read(config: Any) -> bool:
    """Whether a run trains its reader."""
    return reader_kind(config) in LEARNED
