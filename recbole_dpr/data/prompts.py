"""Prompts by id, and prompts that are made."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from recbole_dpr.data.intent import Intent
from recbole_dpr.data.phrasebook import Phrasebook

# Shares of the made prompts that reading is learned from; the neutral ones ask for nothing.
MADE = {"positive": 0.3, "negative": 0.3, "compound": 0.25, "neutral": 0.15}


class PromptTable:
    """Prompts by id: RecBole's interactions carry integers, this holds what they stand for.

    Id 0 is no prompt.

    Parameters
    ----------
    n_values : int
        Number of attribute values (V).

    Attributes
    ----------
    texts : list of str
    intents : list of Intent
    """

    def __init__(self, n_values: int) -> None:
        self.n_values = n_values
        self.texts: list[str] = [""]
        self.intents: list[Intent] = [Intent()]

    def __len__(self) -> int:
        return len(self.texts)

    def add(self, text: str, intent: Intent) -> int:
        """Append a prompt and return its id."""
        self.texts.append(text)
        self.intents.append(intent)
        for marks in ("include", "exclude"):
            vars(self).pop(marks, None)  # looked up per batch, so kept until a prompt comes in
        return len(self.texts) - 1

    @cached_property
    def include(self) -> Tensor:
        """Wanted values, bool ``[n_prompts, V]``."""
        return multi_hot([intent.include for intent in self.intents], self.n_values)

    @cached_property
    def exclude(self) -> Tensor:
        """Unwanted values, bool ``[n_prompts, V]``."""
        return multi_hot([intent.exclude for intent in self.intents], self.n_values)


def multi_hot(rows: Sequence[Sequence[int]], n_values: int) -> Tensor:
    """Bool ``[n, n_values]`` from the indices that are true in each row."""
    marks = torch.zeros(len(rows), n_values, dtype=torch.bool)
    times = torch.tensor([len(row) for row in rows], dtype=torch.long)
    columns = torch.tensor(list(chain.from_iterable(rows)), dtype=torch.long)
    marks[torch.arange(len(rows)).repeat_interleave(times), columns] = True
    return marks


def made_prompts(
    phrasebook: Phrasebook,
    n_values: int,
    size: int,
    rng: np.random.Generator,
    phrases: str = "train",
) -> PromptTable:
    """Make prompts whose intent is known, to learn reading from.

    Values are drawn uniformly, so that rare ones are read as well as common ones; one prompt in five
    asks for (or rejects) two values.

    Parameters
    ----------
    size : int
        Number of prompts, the empty prompt 0 aside.
    """
    table = PromptTable(n_values)
    for kind in rng.choice(list(MADE), size, p=list(MADE.values())):
        if kind == "neutral":
            table.add(phrasebook.neutral(phrases, rng), Intent())
            continue
        many = 1 + (rng.random(2) < 0.2)
        n_include = int(many[0]) if kind != "negative" else 0
        n_exclude = int(many[1]) if kind != "positive" else 0
        values = rng.permutation(n_values)[: n_include + n_exclude].tolist()
        if kind == "compound" and len(values) < 2:
            continue
        intent = Intent(tuple(values[:n_include]), tuple(values[n_include:]))
        table.add(phrasebook.prompt(intent, phrases, rng), intent)
    return table
