"""Batches of the three stages side by side, for training them in one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from recbole.data.interaction import Interaction

from recbole_dpr.data.alignment import AlignmentBatch


@dataclass(frozen=True)
class JointBatch:
    """One batch of each stage.

    Parameters
    ----------
    own : Interaction
        What the backbone learns from: windows, or prefixes if it is not causal.
    alignment : AlignmentBatch
    windows : Interaction
        What prompts are asked at.
    """

    own: Interaction
    alignment: AlignmentBatch
    windows: Interaction

    def to(self, device: torch.device) -> JointBatch:
        """The batches on another device, as RecBole's trainer asks for them."""
        return JointBatch(self.own.to(device), self.alignment.to(device), self.windows.to(device))


class JointLoader:
    """As many `JointBatch` as the first of three loaders has batches; the others begin anew at their end.

    Parameters
    ----------
    own, alignment, windows
        The loaders of stages 1, 2 and 3; `own` and `windows` may be the same.
    """

    def __init__(self, own: Any, alignment: Any, windows: Any) -> None:
        self._loaders = (own, alignment, windows)

    def set_epoch(self, epoch: int) -> None:
        """Let every loader draw its epoch."""
        for loader in self._loaders:
            loader.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self._loaders[0])

    def __iter__(self) -> Iterator[JointBatch]:
        own, *others = self._loaders
        for batches in zip(own, *map(_endlessly, others), strict=False):
            yield JointBatch(*batches)


def _endlessly(loader: Iterable[Any]) -> Iterator[Any]:
    while True:
        yield from loader
