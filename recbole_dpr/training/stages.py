"""What a training stage is, and the three of DPR."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn import Parameter

from recbole_dpr.config import StageOptions
from recbole_dpr.data.alignment import AlignmentLoader
from recbole_dpr.data.phrasebook import Phrasebook
from recbole_dpr.data.prompts import PromptedTask, PromptTable, made_prompts
from recbole_dpr.data.windows import WindowLoader
from recbole_dpr.model.dpr import DPR
from recbole_dpr.model.pretrained import reader_kind

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


@dataclass(frozen=True)
class PromptedTraining:
    """What stages 2 and 3 need beside the interactions.

    Parameters
    ----------
    phrasebook : Phrasebook
    tasks : list of PromptedTask
        The prompted tasks of the validation split, in training phrases.
    prompts : PromptTable
        Their prompts.
    """

    phrasebook: Phrasebook
    tasks: list[PromptedTask]
    prompts: PromptTable


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
    modules = (model.semantic, model.prompt, model.fusion, model.experts)
    parameters = [parameter for module in modules for parameter in module.parameters()]
    return Stage(
        3,
        "promptable fine-tuning",
        options,
        WindowLoader(config, loader.dataset, options.batch_size),
        model.prompted_loss,
        parameters,
        True,
    )
