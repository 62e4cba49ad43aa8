"""Readers that come trained: those that the package ships, and others of benchmarks/train_reader.py."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from recbole_dpr.errors import DPRError, did_you_mean
from recbole_dpr.files import replacing
from recbole_dpr.model.pooled import PooledReader
from recbole_dpr.model.reader import PromptReader
from recbole_dpr.text.adapted import DOWN, ENCODER, LORA, UP, WEIGHTS
from recbole_dpr.text.mentions import Mentions

LEARNED = ("trained", "pooled")  # in stage 2
SIZE = 128
# The layer of the bundled encoder whose states a reader over it takes: its embeddings. Those above it are the reader's own.
SHIPPED_STATES = 0
SHOWN_VALUES = 18  # that a reader which comes trained was shown with each prompt
MANY = 100  # values; measured with 18, 19 and 233
SPELLED_AMONG_MANY = 0.75  # in place of SPELLED; see docs/experiments.md
READER_FILE = Path(__file__).with_name("reader.safetensors")
LARGE_READER_FILE = Path(__file__).with_name("large_reader.safetensors")
FILES = {"shipped": READER_FILE, "large": LARGE_READER_FILE}
NAMES = (*FILES, *LEARNED)
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
    if name in FILES or name.endswith(".safetensors"):
        return "file"
    raise DPRError(f"there is no reader {name!r}{did_you_mean(name, NAMES)}; {WAY_OUT}")


def learns_to_read(config: Any) -> bool:
    """Whether a run trains its reader."""
    return reader_kind(config) in LEARNED


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
        return load_reader(names, path)
    except (SafetensorError, OSError, KeyError, RuntimeError) as error:
        raise DPRError(
            f"{path} is no reader over the encoder that it names: train it again"
        ) from error


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
    digest = hashlib.blake2b(repr((mentions, reader.doubt, reader.spelled)).encode(), digest_size=8)
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
    OSError
        If it cannot be written.
    """
    weights = dict(reader.state_dict())
    for name, (up, down) in (changes or {}).items():
        weights |= {f"{LORA}{name}{UP}": up, f"{LORA}{name}{DOWN}": down}
    halved = {name: weight.detach().half().contiguous() for name, weight in weights.items()}
    told = {key: text for key, text in ((ENCODER, encoder), (WEIGHTS, weights_hash)) if text}
    with replacing(path) as temporary:
        save_file(halved, temporary, told or None)
