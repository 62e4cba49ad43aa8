"""The reader that the package ships, trained by benchmarks/train_reader.py."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from recbole_dpr.errors import DPRError
from recbole_dpr.model.pooled import PooledReader
from recbole_dpr.model.reader import PromptReader
from recbole_dpr.text.mentions import Mentions

SIZE = 128
# The layer of the bundled encoder whose states the shipped reader takes: its embeddings.
SHIPPED_STATES = 0
SHIPPED_UPPER = 6  # the layers above it, which the reader has made its own
SHIPPED_VALUES = 18  # that it was shown with each prompt
MANY = 100  # values; measured with 18, 19 and 233
SPELLED_AMONG_MANY = 0.75  # in place of SPELLED; see docs/experiments.md
READER_FILE = Path(__file__).with_name("reader.safetensors")


def reader_kind(config: Any) -> str:
    """Whether a run uses the "shipped" reader, or a "trained" or "pooled" one, learned in stage 2.

    Raises
    ------
    DPRError
        If the shipped reader is asked for with another encoder than the one whose states it reads.
    """
    own_encoder = bool(config["text_encoder"])
    if config["reader"] == "shipped" and own_encoder:
        raise DPRError(
            "reader=shipped reads the states of the default encoder only: leave text_encoder empty, or "
            "set reader=trained"
        )
    return config["reader"] or ("trained" if own_encoder else "shipped")


def learns_to_read(config: Any) -> bool:
    """Whether a run trains its reader."""
    return reader_kind(config) != "shipped"


def states_layer(kind: str) -> int | None:
    """The layer of the text encoder that a reader of this kind reads; None is the last."""
    return SHIPPED_STATES if kind == "shipped" else None


def make_reader(names: Tensor, kind: str) -> PromptReader:
    """A reader of the values of these names, ``[V, D]``."""
    if kind == "pooled":
        return PooledReader(names, SIZE, upper=0)
    if kind == "trained":
        return PromptReader(names, SIZE, upper=0)
    reader = PromptReader(names, SIZE, SHIPPED_UPPER)
    reader.doubt = max(0.0, math.log(len(names) / SHIPPED_VALUES))
    if len(names) >= MANY:
        reader.spelled = SPELLED_AMONG_MANY
    reader.load_state_dict({name: w.float() for name, w in load_file(READER_FILE).items()})
    return reader.requires_grad_(False)


def fingerprint(reader: PromptReader, mentions: Mentions) -> str:
    """Tells apart readers, and names of values, that may read the same text otherwise."""
    digest = hashlib.blake2b(repr((mentions, reader.doubt, reader.spelled)).encode(), digest_size=8)
    digest.update(reader.names.cpu().numpy().tobytes())
    for name, weight in sorted(reader.state_dict().items()):
        digest.update(name.encode() + weight.cpu().numpy().tobytes())
    return digest.hexdigest()


def save_reader(reader: PromptReader, path: str | Path) -> None:
    """Write a reader in half precision: half the size, the same reading."""
    weights = {name: weight.to(torch.float16) for name, weight in reader.state_dict().items()}
    save_file(weights, path)
