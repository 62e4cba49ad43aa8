"""What a training stage is, and the three of DPR."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from recbole.data.interaction import Interaction
from torch import Tensor
from torch.nn import Parameter

from recbole_dpr.config import StageOptions
from recbole_dpr.data.alignment import AlignmentLoader
from recbole_dpr.data.prompts import made_prompts
from recbole_dpr.data.windows import WINDOW, WindowLoader
from recbole_dpr.model.dpr import DPR
from recbole_dpr.model.pretrained import reader_kind
from recbole_dpr.training.validation import PromptedTraining

STATES_LIMIT = 1 << 30  # bytes; ml-100k takes 50 MB, ml-1m at L=50 half a gigabyte
STATES_AT_ONCE = 256  # windows

Loss = Callable[[Any], Tensor | tuple[Tensor, ...]]


@dataclass(frozen=True)
class Stage:
    """One training stage.

    Parameters
    ----------
    number : int
        1, 2 or 3.
    title : str
    options : StageOptions
    loader : iterable of Interaction
        Has ``set_epoch``.
    loss : callable
        From a batch to one loss or a tuple of them.
    parameters : list of Parameter
        What the stage trains; all else stays.
    prompted : bool
        Whether it is validated on the prompted tasks rather than on the standard one.
    """

    number: int
    title: str
    options: StageOptions
    loader: Any
    loss: Loss
    parameters: list[Parameter]
    prompted: bool

    def rate(self, step: int, warmup: int) -> float:
        """Factor of the learning rate at a step, counted from 0 over the whole stage."""
        rising = min(1.0, (step + 1) / max(1, warmup))
        if self.options.schedule == "constant":
            return rising
        total = self.options.epochs * len(self.loader)
        return rising * 0.5 * (1 + math.cos(math.pi * min(1.0, step / total)))


class FrozenStates:
    """The frozen backbone's states of every window, computed once where they fit into memory.

    Parameters
    ----------
    model : DPR
        Its backbone no longer changes.
    loader : WindowLoader
        With fixed cuts.
    """

    def __init__(self, model: DPR, loader: WindowLoader) -> None:
        self.model = model
        self._kept: Tensor | None = None
        size = 4 * loader.n_windows * loader.length * model.backbone.size
        if size <= STATES_LIMIT:
            # In a fixed order: a resumed run must find the same bits, and they depend on the batch.
            parts = torch.arange(loader.n_windows).split(STATES_AT_ONCE)
            self._kept = torch.cat([self._compute(loader.windows(part)).cpu() for part in parts])

    def __call__(self, batch: Interaction) -> Tensor:
        """States ``[B, L, d]`` of a batch of windows."""
        if self._kept is None:
            return self._compute(batch)
        return self._kept[batch[WINDOW].cpu()].to(self.model.device)

    @torch.no_grad()
    def _compute(self, batch: Interaction) -> Tensor:
        return self.model.backbone.states(batch[self.model.ITEM_SEQ].to(self.model.device))


def collaborative_stage(config: Any, model: Any, loss: Loss, loader: WindowLoader) -> Stage:
    """Stage 1: collaborative pre-training of the backbone."""
    module = model.backbone if isinstance(model, DPR) else model
    parameters = list(module.parameters())
    return Stage(
        1,
        "collaborative pre-training",
        config.stage(1),
        loader,
        loss,
        parameters,
        False,
    )


def alignment_stage(config: Any, model: DPR, training: PromptedTraining) -> Stage:
    """Stage 2: align item texts and prompts with the item space, backbone frozen."""
    options = config.stage(2)
    parameters = list(model.semantic.parameters())
    prompts = None
    if reader_kind(config) == "trained":
        rng = np.random.default_rng(config["task_seed"])
        n_values = len(model.attributes)
        size = config["reader_prompts"]
        prompts = made_prompts(training.phrasebook, n_values, size, rng)
        parameters += model.reader.parameters()
    loader = AlignmentLoader(
        model.n_items, options.batch_size, config["seed"], prompts, model.encoder
    )
    return Stage(
        2,
        "alignment",
        options,
        loader,
        model.alignment_loss,
        parameters,
        True,
    )


def prompted_stage(config: Any, model: DPR, loader: WindowLoader) -> Stage:
    """Stage 3: promptable fine-tuning on a mix of prompts, backbone frozen, reading as it is."""
    options = config.stage(3)
    windows = WindowLoader(config, loader.dataset, options.batch_size, fixed_cuts=True)
    states = FrozenStates(model, windows)
    modules = (model.semantic, model.prompt, model.fusion, model.experts)
    parameters = [parameter for module in modules for parameter in module.parameters()]
    return Stage(
        3,
        "promptable fine-tuning",
        options,
        windows,
        lambda batch: model.prompted_loss(batch, states(batch)),
        parameters,
        True,
    )
