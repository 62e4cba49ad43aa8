"""Readers that come trained: those that the package ships, and others of benchmarks/train_reader.py."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from recbole_dpr.errors import DPRError
from recbole_dpr.files import replacing
from recbole_dpr.model.pooled import PooledReader
from recbole_dpr.model.reader import PromptReader
from recbole_dpr.readers import WAY_OUT, kind_of
from recbole_dpr.text.adapted import DOWN, ENCODER, LORA, UP, WEIGHTS
from recbole_dpr.text.encoder import PRECISIONS
from recbole_dpr.text.mentions import Mentions

SIZE = 128
# The layer of the bundled encoder whose states a reader over it takes: its embeddings. Those above it are the reader's own.
SHIPPED_STATES = 0
SHOWN_VALUES = 18  # that a reader which comes trained was shown with each prompt
MANY = 100  # values; measured with 18, 19 and 233
SPELLED_AMONG_MANY = 0.75  # in place of SPELLED; see docs/experiments.md
READER_FILE = Path(__file__).with_name("reader.safetensors")
LARGE_READER_FILE = Path(__file__).with_name("large_reader.safetensors")
FILES = {"shipped": READER_FILE, "large": LARGE_READER_FILE}


def find_reader(name: str) -> Path:
    """The file of a reader that comes trained.

    Raises
    ------
    DPRError
        If it is not there.
    """
    path = FILES.get(name or "shipped") or Path(os.path.expanduser(name))
    if not path.is_file():
        raise DPRError(f"there is no reader '{name}': {WAY_OUT}")
    return path


def make_reader(names: Tensor, config: Any, name: str) -> PromptReader:
    """The reader `name` of the values of these names, ``[V, D]``.

    Raises
    ------
    DPRError
        If there is no such reader, or it is damaged.
    """
    kind = kind_of(name, config)
    if kind == "pooled":
        return PooledReader(names, SIZE, upper=0)
    if kind == "trained":
        return PromptReader(names, SIZE, upper=0)
    path = find_reader(name)
    try:
        reader = load_reader(names, path)
    except (SafetensorError, OSError, KeyError, RuntimeError) as error:
        raise DPRError(
            f"{path} is no reader over the encoder that it names: train it again"
        ) from error
    reader.precision = PRECISIONS[reading_precision(config)]
    return reader


def reading_precision(config: Any) -> str:
    """In which precision a reader that comes trained reads: option `reader_precision`, whose None is resolved here."""
    if config["reader_precision"]:
        return config["reader_precision"]
    on_cpu = torch.device(config["device"]).type == "cpu"
    return "bfloat16" if on_cpu and multiplies_bfloat16() else "float32"


@cache
def multiplies_bfloat16() -> bool:
    """Whether the processor has instructions for products in bfloat16; False where torch is too old to tell."""
    has: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(has.get("avx512_bf16") or has.get("amx_bf16"))


def load_reader(names: Tensor, path: Path) -> PromptReader:
    """A reader that `save_reader` wrote, frozen."""
    weights = {n: w.float() for n, w in load_file(path).items() if not n.startswith(LORA)}
    upper = {name.split(".")[1] for name in weights if name.startswith("upper.")}
    reader = PromptReader(names, len(weights["query.weight"]), len(upper))
    reader.load_state_dict(weights)
    reader.doubt = max(0.0, math.log(len(names) / SHOWN_VALUES))
    if len(names) >= MANY:
        reader.spelled = SPELLED_AMONG_MANY
    reader.comes_trained = True
    return reader.requires_grad_(False)


def fingerprint(reader: PromptReader, mentions: Mentions) -> str:
    """Tells apart readers, and names of values, that may read the same text otherwise."""
    rules = (mentions, reader.doubt, reader.spelled, reader.precision)
    digest = hashlib.blake2b(repr(rules).encode(), digest_size=8)
    digest.update(reader.names.cpu().numpy().tobytes())
    for name, weight in sorted(reader.state_dict().items()):
        digest.update(name.encode() + weight.cpu().numpy().tobytes())
    return digest.hexdigest()


def save_reader(
    reader: PromptReader,
    path: str | Path,
    encoder: str = "",
    changes: Mapping[str, tuple[Tensor, Tensor]] | None = None,
    weights_hash: str = "",
) -> None:
    """Write a reader in half precision: half the size, the same reading.

    Parameters
    ----------
    reader : PromptReader
    path : path
    encoder : str
        The text encoder that comes with it, a folder or a Hugging Face name; "" is the bundled one.
    changes : dict of str to (Tensor ``[m, rank]``, Tensor ``[rank, n]``), optional
        The products that are added to weights ``[m, n]`` of that encoder, by their names; n is 1 for a vector.
    weights_hash : str
        `hash_of_vectors` of those weights before, in the order of their names.

    Raises
    ------
    DPRError
        If it cannot be written.
    """
    weights = dict(reader.state_dict())
    for name, (up, down) in (changes or {}).items():
        weights |= {f"{LORA}{name}{UP}": up, f"{LORA}{name}{DOWN}": down}
    halved = {name: weight.detach().half().contiguous() for name, weight in weights.items()}
    told = {key: text for key, text in ((ENCODER, encoder), (WEIGHTS, weights_hash)) if text}
    try:
        with replacing(path) as temporary:
            save_file(halved, temporary, told or None)
    except (OSError, SafetensorError) as error:
        raise DPRError(f"the reader cannot be written to {path}: {error}") from error
