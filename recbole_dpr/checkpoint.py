"""Checkpoints: tensors in safetensors, the rest as json in its header. Nothing is ever unpickled."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from recbole_dpr.compat import load_recbole_checkpoint
from recbole_dpr.errors import DPRError
from recbole_dpr.files import no_run, replacing

MODEL_FILE = "model.safetensors"  # the weights that evaluation and serving use
FORMAT = 1  # of these files; raised when an older version could no longer read them rightly
# Names of DPR's weights:
BACKBONE = "backbone.model."  # before those of its backbone
ITEM_TEXT = "semantic.item_text"  # the encoded item texts, which a training makes anew
READER = "reader."  # before those of its reader


def save_tensors(
    path: str | Path, tensors: dict[str, Tensor], about: dict[str, Any], go_on: str = ""
) -> None:
    """Write tensors and a json description as one file, whole or not at all.

    The file says which format it has and what its tensors' checksum is. `go_on` says how to go on after a
    failure, where the file is not a run folder's.

    Raises
    ------
    DPRError
        If the file cannot be written (a full disk, say); the file that stood there is untouched.
    """
    path = Path(path)
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    metadata = {"about": json.dumps(about), "format": str(FORMAT), "checksum": checksum(plain)}
    try:
        with replacing(path) as temporary:
            save_file(plain, temporary, metadata=metadata)
    except (OSError, SafetensorError) as error:
        raise DPRError(
            f"cannot write {path} ({error}): free some space and "
            f"{go_on or f'go on with --resume={path.parent}'}; the previous checkpoint is untouched"
        ) from error


def load_tensors(
    path: str | Path, instead: str = "use another run's folder"
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_tensors` wrote; `instead` says what to do about a damaged file.

    Raises
    ------
    DPRError
        If the file is missing, cut off, changed since, not ours, or of a newer version.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise DPRError(no_run(path.parent))
    if not path.is_file():
        raise DPRError(
            f"{path.parent} has no {path.name}: its run was not finished (--resume={path.parent} goes on with "
            "it), or is no run"
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            about, made_in = json.loads(metadata["about"]), int(metadata["format"])
            if made_in > FORMAT:
                raise DPRError(
                    f"{path} was made by a newer version of recbole_dpr (format {made_in}; this one "
                    f"reads up to {FORMAT}): upgrade recbole_dpr"
                )
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except DPRError:
        raise
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise DPRError(f"{path} is damaged ({error}): {instead}") from error
    if metadata.get("checksum") != checksum(tensors):
        raise DPRError(f"{path} is damaged or was changed (its checksum differs): {instead}")
    return tensors, about


def checksum(tensors: dict[str, Tensor]) -> str:
    """Hash over names, types, shapes and contents of tensors on the CPU."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load_weights(model: nn.Module, weights: dict[str, Tensor], source: str | Path) -> None:
    """Put weights into a model that must have exactly these.

    Raises
    ------
    DPRError
        If a name or a shape differs: names the first one.
    """
    own = model.state_dict()
    for name in sorted(own.keys() | weights.keys()):
        if name not in weights or name not in own:
            where = "lacks" if name not in weights else "has an unknown"
            raise DPRError(
                f"{source} {where} weight {name!r}: it was made with other options, or by another version"
            )
        if own[name].shape != weights[name].shape:
            raise DPRError(
                f"{source}: weight {name!r} is {list(weights[name].shape)}, this model's is "
                f"{list(own[name].shape)}: it was made with other options or another data set"
            )
    model.load_state_dict(weights)


def with_reader_of(model: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a run, but for those of its reader: a reader that comes trained belongs to the encoder that it came with."""
    own = {n: w for n, w in model.state_dict().items() if n.startswith(READER)}
    return {n: w for n, w in weights.items() if not n.startswith(READER)} | own


def backbone_weights(path: str | Path, trust: bool = False) -> dict[str, Tensor]:
    """A backbone's weights: of a finished run, DPR's or a plain model's, or of RecBole's own `.pth`.

    Parameters
    ----------
    path : path
        A run folder, or a checkpoint that RecBole's trainer wrote.
    trust : bool
        A `.pth` is a pickle, and reading it runs the code that it names: True says that you know who
        made it.

    Raises
    ------
    DPRError
        If there is nothing to read, or a `.pth` came without trust.
    """
    if Path(path).suffix == ".pth":
        return dict(load_recbole_checkpoint(path, trust)["state_dict"])
    weights, _ = load_tensors(Path(path) / MODEL_FILE)
    inner = {n.removeprefix(BACKBONE): w for n, w in weights.items() if n.startswith(BACKBONE)}
    return inner or weights
