"""What a training stage is, the three of DPR, and all of them in one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from recbole.data.interaction import Interaction
from torch import Tensor
from torch.nn import Module, Parameter

from recbole_dpr.data.alignment import AlignmentLoader
from recbole_dpr.data.dataset import PromptDataset
from recbole_dpr.data.joint import JointBatch, JointLoader
from recbole_dpr.data.loading import PrefixLoader
from recbole_dpr.data.logged import LoggedIntents, known_intents
from recbole_dpr.data.prompts import made_prompts
from recbole_dpr.data.windows import WINDOW, PrefixWindows, WindowLoader
from recbole_dpr.errors import DPRError
from recbole_dpr.model.backbone import Backbone
from recbole_dpr.model.build import aligns
from recbole_dpr.model.dpr import DPR
from recbole_dpr.model.semantic import NEVER
from recbole_dpr.readers import learns_to_read
from recbole_dpr.stage_options import StageOptions
from recbole_dpr.training.validation import PromptedTraining

WARMED_UP = 1 / 8  # of a stage's steps at most: small data has few
STATES_LIMIT = 1 << 30  # bytes; ml-100k takes 50 MB, ml-1m at L=50 and 128 dimensions a gigabyte
STATES_AT_ONCE = 256  # windows
SPREAD_PREFIXES = 128  # histories

Loss = Callable[[Any], Tensor | tuple[Tensor, ...]]
Group = tuple[list[Parameter], float]


@dataclass(frozen=True)
class Stage:
    """One training stage.

    Parameters
    ----------
    number : int
        1, 2 or 3; 0 for what a backbone does before.
    title : str
    options : StageOptions
    loader : iterable of batches
        Interactions, `AlignmentBatch` or `JointBatch`, whichever the loss takes. Has ``set_epoch``.
    loss : callable
        From a batch to one loss or a tuple of them.
    groups : list of (list of Parameter, float)
        What the stage trains, each group with its learning rate; all else stays.
    prompted : bool
        Whether it is validated on the prompted tasks rather than on the standard one.
    """

    number: int
    title: str
    options: StageOptions
    loader: Any
    loss: Loss
    groups: list[Group]
    prompted: bool

    @property
    def parameters(self) -> list[Parameter]:
        """All that the stage trains."""
        return [parameter for parameters, _ in self.groups for parameter in parameters]

    def measures_like(self, other: Stage) -> bool:
        """Whether the validation figures of both stages may be compared."""
        metrics = (self.options.valid_metric, other.options.valid_metric)
        return self.prompted == other.prompted and metrics[0] == metrics[1]

    def rate(self, step: int, warmup: int) -> float:
        """Factor of the learning rate at a step, counted from 0 over the whole stage.

        It rises over `warmup` steps, or `WARMED_UP` of the stage where that is less.
        """
        total = self.options.epochs * len(self.loader)
        rising = min(1.0, (step + 1) / max(1.0, min(warmup, WARMED_UP * total)))
        if self.options.schedule == "constant":
            return rising
        return rising * 0.5 * (1 + math.cos(math.pi * min(1.0, step / total)))


class FrozenParts:
    """The frozen backbone's part in every window, computed at the first call where all fit into memory.

    Parameters
    ----------
    model : DPR
        Its backbone no longer changes.
    loader : WindowLoader
        With fixed cuts.
    """

    def __init__(self, model: DPR, loader: WindowLoader) -> None:
        self.model, self.loader = model, loader
        size = 4 * loader.n_windows * (loader.length * model.backbone.size or model.n_items)
        self.keeps = size <= STATES_LIMIT

    def __call__(self, batch: Interaction) -> Tensor:
        """`DPR.backbone_part` of a batch of windows."""
        if not self.keeps:
            return self._compute(batch)
        return self._kept[batch[WINDOW].cpu()].to(self.model.device)

    @cached_property
    def _kept(self) -> Tensor:
        # In a fixed order: a resumed run must find the same bits, and they depend on the batch.
        windows = torch.arange(self.loader.n_windows).split(STATES_AT_ONCE)
        kept = torch.empty(0)
        for some in windows:
            part = self._compute(self.loader.windows(some)).cpu()
            if not len(kept):
                kept = part.new_empty(self.loader.n_windows, *part.shape[1:])
            kept[some] = part
        return kept

    @torch.no_grad()
    def _compute(self, batch: Interaction) -> Tensor:
        with torch.autocast(self.model.device.type, enabled=False):  # they stand for all epochs
            return self.model.backbone_part(batch.to(self.model.device))


def own_stage(config: Any, model: Any, dataset: PromptDataset) -> Stage:
    """Stage 0: the pre-training that S3Rec has of its own."""
    options = config.stage(1)
    epochs = min(config["pretrain_epochs"], config["epochs"])
    return Stage(
        0,
        f"{type(model).__name__}'s own pre-training",
        replace(options, epochs=epochs, patience=epochs),
        PrefixLoader(config, dataset, None, options.prefixes),
        model.calculate_loss,
        [(_trained(model), options.learning_rate)],
        False,
    )


def collaborative_stage(config: Any, backbone: Backbone, loss: Loss, loader: Any) -> Stage:
    """Stage 1: collaborative pre-training of the backbone."""
    options = config.stage(1)
    return Stage(
        1,
        "collaborative pre-training",
        options,
        loader,
        loss,
        [(_trained(backbone), options.learning_rate)],
        False,
    )


def _trained(backbone: Module) -> list[Parameter]:
    """All but what the model itself has frozen (vectors of a knowledge graph, say)."""
    return [weight for weight in backbone.parameters() if weight.requires_grad]


def alignment_stage(
    config: Any, model: DPR, training: PromptedTraining, dataset: PromptDataset
) -> Stage:
    """Stage 2: align item texts and prompts with the item space, backbone frozen."""
    model.semantic.never = min(NEVER, -spread(config, model, dataset))
    options = config.stage(2)
    return Stage(
        2,
        "alignment",
        options,
        alignment_loader(config, model, training),
        model.alignment_loss,
        [
            (list(model.semantic.parameters()), options.learning_rate),
            *learned_reader(config, model),
        ],
        True,
    )


def alignment_loader(config: Any, model: DPR, training: PromptedTraining) -> AlignmentLoader:
    """Items with their values, and made prompts where the reader is trained too."""
    prompts, n_values = None, len(model.attributes)
    if learns_to_read(config):
        rng = np.random.default_rng(config["task_seed"])
        size = config["reader_prompts"]
        prompts = made_prompts(training.phrasebook, n_values, size, rng)
    size = config.stage(2).batch_size
    return AlignmentLoader(
        model.n_items, n_values, size, config["seed"], prompts, model.encoder, model.mentions
    )


@torch.no_grad()
def spread(config: Any, model: DPR, dataset: PromptDataset) -> float:
    """How far a user's best item stands above the median one in the backbone's logits, on average."""
    prefixes = PrefixWindows(config, dataset, SPREAD_PREFIXES, SPREAD_PREFIXES)
    batch = prefixes.windows(torch.arange(prefixes.n_windows)).to(model.device)
    own = model.own_logits(model.backbone.scores(batch))
    logits = model.without_history(own, batch)[:, 1:]
    # Of what can be recommended at all: histories may hold half of a small catalogue.
    middle = logits.masked_fill(logits == -torch.inf, torch.nan).nanmedian(dim=1).values
    return float((logits.amax(dim=1) - middle).nan_to_num(nan=0.0).mean())


def learned_reader(config: Any, model: DPR) -> list[Group]:
    """The weights of the reader, if it is trained."""
    if not learns_to_read(config):
        return []
    return [(list(model.reader.parameters()), config["reader_learning_rate"])]


def prompted_stage(config: Any, model: DPR, dataset: PromptDataset) -> Stage:
    """Stage 3: promptable fine-tuning on a mix of prompts, backbone frozen, reading as it is."""
    options = config.stage(3)
    windows: WindowLoader
    if model.backbone.causal:
        windows = WindowLoader(config, dataset, options.batch_size, fixed_cuts=True)
    else:
        windows = PrefixWindows(config, dataset, options.batch_size, options.prefixes)
    hear_logged(model, dataset)
    frozen = FrozenParts(model, windows)
    # A semantic space that nothing has aligned is not one to keep.
    semantic = config["stage3_semantic"] or not aligns(config)
    return Stage(
        3,
        "promptable fine-tuning",
        options,
        windows,
        lambda batch: model.prompted_loss(batch, frozen(batch)),
        [(model.steering_parameters(semantic), options.learning_rate)],
        True,
    )


def hear_logged(model: DPR, dataset: PromptDataset) -> None:
    """Let targets that came with a prompt of the data set's own be asked that one."""
    if dataset.logged:
        logged = known_intents(dataset.logged, model.read)
        model.logged = LoggedIntents.of(logged, len(model.attributes))


def joint_stage(config: Any, model: DPR, own: Any, training: PromptedTraining) -> Stage:
    """One stage in place of three: the sum of their losses, nothing frozen.

    It takes as many steps as stage 1, by the options of stage 1, from fresh weights like stage 1, and is
    validated on the prompted tasks, like stage 3.

    Parameters
    ----------
    own : WindowLoader or PrefixLoader
        The batches of stage 1.

    Raises
    ------
    DPRError
        If prompts of the data set are to be read by a reader that has learned nothing yet.
    """
    dataset = own.dataset
    if learns_to_read(config) and any(intent is None for _, intent in dataset.logged):
        raise DPRError(
            "joint=True with a reader that is trained needs prompts whose include and exclude are "
            f"known: give {config['dataset']}.prompt these columns"
        )
    hear_logged(model, dataset)
    windows = own
    if not model.backbone.causal:
        size = config["train_batch_size"]  # as many as the backbone sees at once
        windows = PrefixWindows(config, dataset, size, config.stage(3).prefixes)
    backbone = [weight for weight in model.backbone.parameters() if weight.requires_grad]
    options = replace(config.stage(1), valid_metric=config.stage(3).valid_metric)

    def loss(batch: JointBatch) -> tuple[Tensor, ...]:
        part = model.backbone_part(batch.windows)
        return (
            *_several(model.calculate_loss(batch.own)),
            *_several(model.alignment_loss(batch.alignment)),
            model.prompted_loss(batch.windows, part),
        )

    return Stage(
        1,
        "all at once",
        options,
        JointLoader(own, alignment_loader(config, model, training), windows),
        loss,
        [
            ([*backbone, *model.steering_parameters()], options.learning_rate),
            *learned_reader(config, model),
        ],
        True,
    )


def _several(losses: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return losses if isinstance(losses, tuple) else (losses,)
