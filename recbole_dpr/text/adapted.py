"""A text encoder whose layers a reader has changed, by matrices of low rank (as LoRA: Hu et al., 2021, arXiv 2106.09685)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from recbole_dpr.errors import DPRError
from recbole_dpr.text.encoder import TextEncoder
from recbole_dpr.text.hub import MODEL_FILES, find_model

# In the header of a reader's file: which encoder it changes, and `hash_of_vectors` of those that it changes.
ENCODER, WEIGHTS = "encoder", "weights"
# Names of the changes: that of a weight [m, n] is lora.NAME.up [m, rank] times lora.NAME.down [rank, n].
LORA, UP, DOWN = "lora.", ".up", ".down"


class AdaptedEncoder(TextEncoder):
    """A `TextEncoder` with some of its weights changed.

    Parameters
    ----------
    path : Path
        A reader's file that names an encoder, and holds the changes.
    **options
        Those of `TextEncoder` behind its name.

    Raises
    ------
    DPRError
        If the encoder is not there.
    """

    keeps_states = False  # what a reader has read of them is kept

    def __init__(self, path: Path, **options: Any) -> None:
        self._path, self._told = path, header(path)
        name = self._told[ENCODER]
        files = " ".join(f"--include '{pattern}'" for pattern in MODEL_FILES)
        way_out = f"download it (hf download {name} {files}), or take another reader"
        folder = find_model(name, f"text encoder of {path.name}", way_out)
        super().__init__(str(folder), **options)

    def _files(self) -> list[Path]:
        return [*super()._files(), self._path]

    @torch.no_grad()
    def _load(self, dtype: torch.dtype) -> tuple[Any, Any]:
        # Changes are small beside the weights: added in half precision, much of them would be lost.
        tokenizer, model = super()._load(torch.float32)
        weights = dict(model.named_parameters())
        changes = {n: w.float() for n, w in load_file(self._path).items() if n.startswith(LORA)}
        names = sorted({name.removesuffix(UP).removesuffix(DOWN) for name in changes})
        try:
            changed = [weights[name.removeprefix(LORA)] for name in names]
            known = self._told.get(WEIGHTS) in (None, hash_of_vectors(changed))
            for name, weight in zip(names, changed, strict=True):
                weight.add_((changes[name + UP] @ changes[name + DOWN]).reshape(weight.shape))
        except (KeyError, RuntimeError):
            known = False
        if not known:
            raise DPRError(
                f"{self._path} was not trained over the text encoder in {self._folder}, but over another of its name"
            )
        return tokenizer, model.to(dtype)


def header(path: Path) -> dict[str, str]:
    """What a reader's file says of itself; under `ENCODER`, "" where that is the bundled one.

    Raises
    ------
    DPRError
        If it cannot be read.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {ENCODER: "", **(file.metadata() or {})}
    except (SafetensorError, OSError) as error:
        raise DPRError(f"{path} cannot be read as a reader: {error}") from error


def hash_of_vectors(weights: Iterable[Tensor]) -> str:
    """A hash of the vectors among weights, biases and norms: few numbers that tell one training from another."""
    digest = hashlib.blake2b(digest_size=16)
    for weight in weights:
        if weight.dim() == 1:
            digest.update(weight.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()
