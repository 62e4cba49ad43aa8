"""Batches of stage 2: items with their values, and made prompts where the reader is trained too."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recbole_dpr.data.prompts import PromptTable
from recbole_dpr.text import TextEncoder
from recbole_dpr.text.mentions import Mentions

# Of an epoch at least: one pass over a small catalogue is over sooner than a validation.
STEPS = 280
VALUES_A_STEP = 5  # at most: each value has a direction of its own to learn
PROMPTS_AT_ONCE = 64


@dataclass(frozen=True)
class AlignmentBatch:
    """Items, and optionally encoded prompts with their intents.

    Parameters
    ----------
    items : LongTensor ``[n]``
    prompts : tuple of Tensor, optional
        What the reader sees (token states ``[B, T, D]``, mask and owners ``[B, T]``), then include and
        exclude ``[B, V]``.
    """

    items: Tensor
    prompts: tuple[Tensor, ...] | None = None

    def to(self, device: torch.device) -> AlignmentBatch:
        """The batch on another device, as RecBole's trainer asks for it."""
        prompts = self.prompts and tuple(x.to(device) for x in self.prompts)
        return AlignmentBatch(self.items.to(device), prompts)


class AlignmentLoader:
    """Yields the catalogue as often as makes `STEPS` batches, more where there are thousands of values.

    The order depends on (seed, epoch) alone.

    Parameters
    ----------
    n_items : int
        Padding item included, which is never yielded.
    n_values : int
    batch_size, seed : int
    prompts : PromptTable, optional
        Made prompts, each of which an epoch sees once, or more often where they are fewer than its steps.
    encoder : TextEncoder
        Frozen, so that every prompt is encoded once.
    mentions : Mentions
    """

    def __init__(
        self,
        n_items: int,
        n_values: int,
        batch_size: int,
        seed: int,
        prompts: PromptTable | None,
        encoder: TextEncoder,
        mentions: Mentions,
    ) -> None:
        self.n_items, self.batch_size, self.seed = n_items - 1, batch_size, seed
        steps = max(STEPS, n_values // VALUES_A_STEP)
        self._passes = math.ceil(steps * batch_size / self.n_items)
        self._prompts: tuple[Tensor, ...] | None = None
        if prompts is not None:
            texts = prompts.texts[1:]
            states, mask = encoder.token_states(texts)
            owners = mentions.owners(texts, encoder)
            self._prompts = (states, mask, owners, prompts.include[1:], prompts.exclude[1:])
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Draw the order of one epoch."""
        rng = np.random.default_rng((self.seed, epoch))
        n_prompts = len(self._prompts[0]) if self._prompts else 0
        self._items = torch.from_numpy(
            np.concatenate([1 + rng.permutation(self.n_items) for _ in range(self._passes)])
        )
        # Every step has a prompt: where they are fewer than steps, they come again.
        again = math.ceil(len(self._items) / self.batch_size / n_prompts) if n_prompts else 1
        self._rows = torch.from_numpy(
            np.concatenate([rng.permutation(n_prompts) for _ in range(again)])
        )

    def __len__(self) -> int:
        items, prompts = len(self._items) / self.batch_size, len(self._rows) / PROMPTS_AT_ONCE
        return math.ceil(max(items, prompts))

    def __iter__(self) -> Iterator[AlignmentBatch]:
        steps = len(self)
        items, rows = self._items.tensor_split(steps), self._rows.tensor_split(steps)
        for some, asked in zip(items, rows, strict=True):
            prompts = None
            if self._prompts is not None:
                *seen, include, exclude = (x[asked] for x in self._prompts)
                longest = int(seen[1].sum(dim=1).max())
                prompts = (*(x[:, :longest] for x in seen), include, exclude)
            yield AlignmentBatch(some, prompts)
