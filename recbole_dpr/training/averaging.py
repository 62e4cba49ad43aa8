"""Weights of a stage: copied, put back, averaged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

Weights = dict[str, Tensor]


def trained_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that are being trained, by name."""
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def copy_of_weights(model: nn.Module) -> Weights:
    """The values of `trained_weights`, which later steps leave alone."""
    return {name: weight.detach().clone() for name, weight in trained_weights(model).items()}


def snapshot(model: nn.Module) -> Weights:
    """All that training moves: `copy_of_weights`, and what batch normalisation has seen."""
    return copy_of_weights(model) | {
        f"{prefix}.{name}": buffer.clone()
        for prefix, module in model.named_modules()
        if isinstance(module, _NormBase)
        for name, buffer in module.named_buffers(recurse=False)
    }


@torch.no_grad()
def put_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Set those parameters and buffers of a model that `weights` names."""
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        if name in weights:
            tensor.copy_(weights[name])


class RunningAverage:
    """Exponential moving average of the trained weights (Polyak averaging).

    The validation figures of single steps jump about; those of the average are steady, and so is a
    choice by them.

    Parameters
    ----------
    model : nn.Module
    decay : float
        Share of the average that a step keeps, less in the first steps, to forget the start. 0 is no
        average: the weights themselves count.

    Attributes
    ----------
    weights : dict of str to Tensor
        The average; empty where there is none.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay = model, decay
        self.weights: Weights = copy_of_weights(model) if decay else {}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the weights after `step` steps."""
        if self.weights:
            decay = min(self.decay, step / (step + 10))
            for name, parameter in trained_weights(self.model).items():
                self.weights[name].lerp_(parameter, 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the model has the average of its weights."""
        current = copy_of_weights(self.model) if self.weights else {}
        put_weights(self.model, self.weights)
        try:
            yield
        finally:
            put_weights(self.model, current)
