"""Gradients of positive and of negative prompts during stage 3, for benchmarks/conflict.py."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from recbole.data.interaction import Interaction
from torch import Tensor
from torch.nn import Parameter

from recbole_dpr.data.draws import target_intents
from recbole_dpr.data.windows import TARGET_LIST, WindowLoader
from recbole_dpr.model.dpr import DPR
from recbole_dpr.training.stages import Stage
from recbole_dpr.training.trainer import DPRTrainer

KINDS = ("positive", "negative")
WINDOWS = 128  # of each of the two sets
SEED = 2026  # of the windows and their prompts: the same for every training

Probes = dict[str, list["Probe"]]
Cosines = dict[str, dict[str, float | None]]


@dataclass(frozen=True)
class Probe:
    """Windows all of whose targets are asked prompts of one kind; see `DPR.steered_loss`."""

    batch: Interaction
    part: Tensor
    where: Tensor
    include: Tensor
    exclude: Tensor


def make_probes(model: DPR, loader: WindowLoader, size: int = WINDOWS) -> Probes:
    """Two probes of each kind, over two sets of windows that have none in common.

    Draws nothing of the generators that the training draws from.
    """
    order = np.random.default_rng(SEED).permutation(loader.n_windows)[: 2 * size]
    probes: Probes = {kind: [] for kind in KINDS}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        for numbers in torch.from_numpy(order).tensor_split(2):
            batch = loader.windows(numbers).to(model.device)
            with torch.no_grad():
                part = model.backbone_part(batch)
            items, targets = batch[model.ITEM_SEQ], batch[TARGET_LIST]
            for kind in KINDS:
                mix = {"positive": 0, "negative": 0, "compound": 0, kind: 1}
                intents = target_intents(model.attributes, items, targets, mix)
                probes[kind].append(Probe(batch, part, *intents))
    return probes


def groups(model: DPR) -> dict[str, list[Parameter]]:
    """The weights that stage 3 trains, by the part of the model that they belong to; and all of them."""
    modules = {
        "experts": model.experts.experts,
        **{f"expert {i + 1}": expert for i, expert in enumerate(model.experts.experts)},
        "router": model.experts.router,
        "prompt": model.prompt,
        "fusion": model.fusion,
        "semantic": model.semantic,
    }
    found = {name: list(module.parameters()) for name, module in modules.items()}
    return {name: weights for name, weights in found.items() if weights} | {
        "all": model.steering_parameters()
    }


def gradients(model: DPR, probe: Probe) -> dict[str, Tensor]:
    """The gradient of the loss on a probe, one flat vector per group."""
    weights = [weight for weight in model.steering_parameters() if weight.requires_grad]
    loss = model.steered_loss(probe.batch, probe.part, probe.where, probe.include, probe.exclude)
    found = torch.autograd.grad(loss, weights, allow_unused=True)
    known = {w: g for w, g in zip(weights, found, strict=True) if g is not None}
    return {
        name: torch.cat([known.get(w, torch.zeros_like(w)).flatten() for w in group])
        for name, group in groups(model).items()
    }


def cosine(a: Tensor, b: Tensor) -> float | None:
    """The cosine of two vectors; None where one is zero."""
    norm = float(a.norm() * b.norm())
    return round(float(a @ b) / norm, 4) if norm else None


def cosines(model: DPR, probes: Probes) -> Cosines:
    """By group: the cosine *between* the kinds, and those within the *positive* and the *negative*.

    Each is of gradients on the two different sets of windows, so that none is larger for having
    targets in common. Measured with dropout off.
    """
    was_training = model.training
    model.eval()
    wanted, unwanted = ([gradients(model, probe) for probe in probes[kind]] for kind in KINDS)
    model.train(was_training)
    found: Cosines = {}
    for name in wanted[0]:
        crossed = [cosine(wanted[i][name], unwanted[1 - i][name]) for i in (0, 1)]
        known = [value for value in crossed if value is not None]
        found[name] = {
            "between": round(statistics.mean(known), 4) if known else None,
            "positive": cosine(wanted[0][name], wanted[1][name]),
            "negative": cosine(unwanted[0][name], unwanted[1][name]),
        }
    return found


@torch.no_grad()
def router_weights(model: DPR, probes: Probes) -> dict[str, list[float]]:
    """The mean weight of each expert by kind of prompt."""
    found = {}
    for kind in KINDS:
        include = torch.cat([probe.include for probe in probes[kind]])
        exclude = torch.cat([probe.exclude for probe in probes[kind]])
        weights = model.router_weights(include, exclude).mean(dim=0)
        found[kind] = [round(weight, 4) for weight in weights.tolist()]
    return found


class WatchedTrainer(DPRTrainer):
    """A `DPRTrainer` that measures before every few steps of stage 3, and changes nothing.

    Parameters
    ----------
    every : int
        Steps from one measurement to the next.
    windows : int
        Of each of the two sets that are measured on.

    Attributes
    ----------
    steps : list of int
        Before which it was measured.
    cosines : dict
        As `cosines` gives them, a list over the steps in place of each number.
    router : dict
        As `router_weights` gives them, a list over the steps for each kind.
    """

    def __init__(self, *args: Any, every: int, windows: int = WINDOWS) -> None:
        super().__init__(*args)
        self.every, self.windows = every, windows
        self.steps: list[int] = []
        self.cosines: dict[str, dict[str, list[float | None]]] = {}
        self.router: dict[str, list[list[float]]] = {kind: [] for kind in KINDS}

    def stages(self, train_data: Any) -> Iterator[Stage]:
        """As `DPRTrainer.stages`; stage 3 with a loss that measures first."""
        for stage in super().stages(train_data):
            yield replace(stage, loss=self._watched(stage)) if stage.number == 3 else stage

    def _watched(self, stage: Stage) -> Callable[[Interaction], Any]:
        probes = make_probes(self.model, stage.loader, self.windows)
        step = 0

        def loss(batch: Interaction) -> Any:
            nonlocal step
            if step % self.every == 0:
                self._measure(step, probes)
            step += 1
            return stage.loss(batch)

        return loss

    def _measure(self, step: int, probes: Probes) -> None:
        self.steps.append(step)
        for group, found in cosines(self.model, probes).items():
            for name, value in found.items():
                self.cosines.setdefault(group, {}).setdefault(name, []).append(value)
        for kind, weights in router_weights(self.model, probes).items():
            self.router[kind].append(weights)
