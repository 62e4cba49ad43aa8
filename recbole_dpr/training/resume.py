"""Progress: a training as it stood after an epoch, from which a killed run goes on bit for bit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recbole_dpr.checkpoint import load_tensors, save_tensors
from recbole_dpr.errors import DPRError
from recbole_dpr.training.averaging import Weights
from recbole_dpr.training.validation import Result

RESUME_FILE = "resume.safetensors"  # in the run folder
# The fields of `Progress`: those in the json of the file, and the prefixes of the tensors in it.
ABOUT = (
    *("stage", "epoch", "best_valid_score", "best_valid_result", "cur_step"),
    *("history", "seconds"),
)
TENSORS = ("model", "best", "average", "optimizer", "rng")


@dataclass(frozen=True)
class Progress:
    """What a training needs to go on after an epoch as if it had never stopped.

    Parameters
    ----------
    stage, epoch : int
        The epoch that has ended, counted from 0 within its stage.
    best_valid_score, best_valid_result, cur_step
        Of the stage so far, as RecBole's trainer has them.
    history, seconds
        As `DPRTrainer` has them.
    model : dict of str to Tensor
        The weights, without those that a training never changes.
    best, average : dict of str to Tensor
        The best weights of the stage so far, and the running average.
    optimizer, rng : dict of str to Tensor
        See `optimizer_tensors` and `random_state`.
    """

    stage: int
    epoch: int
    best_valid_score: float
    best_valid_result: Result | None
    cur_step: int
    history: list[dict[str, Any]]
    seconds: dict[str, float]
    model: Weights
    best: Weights
    average: Weights
    optimizer: dict[str, Tensor]
    rng: dict[str, Tensor]

    def save(self, path: str | Path) -> None:
        """Write one file, whole or not at all.

        Raises
        ------
        DPRError
            As `save_tensors`.
        """
        tensors: dict[str, Tensor] = {}
        for group in TENSORS:
            tensors |= prefixed(f"{group}.", getattr(self, group))
        save_tensors(path, tensors, {name: getattr(self, name) for name in ABOUT})

    @classmethod
    def load(cls, path: str | Path) -> Progress:
        """Read what `save` wrote; older versions wrote more than is read.

        Raises
        ------
        DPRError
            As `load_tensors`, or if the file is of something else.
        """
        tensors, about = load_tensors(path)
        lacking = [name for name in ABOUT if name not in about]
        if lacking:
            raise DPRError(f"{path} is no checkpoint of a training: it does not say {lacking[0]!r}")
        fields: dict[str, Any] = {name: about[name] for name in ABOUT}
        fields |= {group: without_prefix(f"{group}.", tensors) for group in TENSORS}
        return cls(**fields)


def random_state() -> dict[str, Tensor]:
    """torch's generators, to go on with exactly the numbers that would have come next."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def restore_random_state(states: dict[str, Tensor]) -> None:
    """Undo what has been drawn since `random_state`."""
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """`tensors` with `prefix` before their names."""
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def without_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those of `tensors` whose names start with `prefix`, without it."""
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The state of an optimizer as named tensors: "<parameter>.<quantity>"."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": torch.as_tensor(value)
        for index, values in state.items()
        for name, value in values.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` gave."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, quantity = name.split(".", 1)
        state.setdefault(int(index), {})[quantity] = value
    optimizer.load_state_dict(
        {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
    )
