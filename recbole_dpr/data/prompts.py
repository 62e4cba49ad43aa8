"""Which prompts go with which interactions: drawing intents, and the prompted evaluation tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recbole_dpr.data.attributes import Attributes
from recbole_dpr.data.dataset import LOGGED_FIELD, PromptDataset
from recbole_dpr.data.intent import Intent
from recbole_dpr.data.phrasebook import Phrasebook

KINDS = ("positive", "negative", "compound")
# Shares of the made prompts that reading is learned from; the neutral ones ask for nothing.
MADE = {"positive": 0.3, "negative": 0.3, "compound": 0.25, "neutral": 0.15}
CHUNK = 1024  # rows whose histories are looked up at once


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
        return one_hot([intent.include for intent in self.intents], self.n_values)

    @cached_property
    def exclude(self) -> Tensor:
        """Unwanted values, bool ``[n_prompts, V]``."""
        return one_hot([intent.exclude for intent in self.intents], self.n_values)


@dataclass(frozen=True)
class PromptedTask:
    """One evaluation task: which rows of a split are asked, and with which prompt.

    Parameters
    ----------
    name : str
        "standard", "positive", "negative", "compound" or "logged".
    phrases : str
        "unseen", "train" or "hard"; "logged" for what users really asked; "" for the standard task,
        which has no prompt.
    rows, prompt_ids : LongTensor ``[n]``
    left_out : int
        Rows for which no valid prompt exists.
    on_habit : BoolTensor ``[n]``
        Whether the prompted value's share of the user's history is at or above the median.
    """

    name: str
    phrases: str
    rows: Tensor
    prompt_ids: Tensor
    left_out: int
    on_habit: Tensor


def one_hot(rows: Sequence[Sequence[int]], n_values: int) -> Tensor:
    """Bool ``[n, n_values]`` from the indices that are true in each row."""
    marks = torch.zeros(len(rows), n_values, dtype=torch.bool)
    for i, row in enumerate(rows):
        marks[i, list(row)] = True
    return marks


def draw_values(weights: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draw one value per row in proportion to its weight, long ``[n]``; -1 where all are zero.

    Parameters
    ----------
    weights : Tensor ``[n, V]``, none negative
    """
    possible = weights.sum(dim=1) > 0
    drawn = torch.full((len(weights),), -1)
    if possible.any():
        drawn[possible] = torch.multinomial(weights[possible].float(), 1, generator=generator)[:, 0]
    return drawn


def draw_intents(
    target_values: Tensor, history_counts: Tensor, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Draw for each target a value that is wanted and one that is not (design: protocol).

    Wanted: uniform over the target's values. Unwanted: a value of the history, by its frequency
    there, that the target lacks.

    Parameters
    ----------
    target_values : BoolTensor ``[n, V]``
    history_counts : Tensor ``[n, V]``
        How many items of the history have each value.

    Returns
    -------
    wanted, unwanted : LongTensor ``[n]``
        -1 where there is none.
    """
    wanted = draw_values(target_values, generator)
    unwanted = draw_values(history_counts * ~target_values, generator)
    return wanted, unwanted


def history_counts(attributes: Attributes, item_lists: Tensor) -> Tensor:
    """How many items of each list have each value: int ``[n, V]`` from lists ``[n, L]``."""
    matrix = attributes.matrix.to(torch.uint8)
    chunks = [matrix[part].sum(dim=1) for part in item_lists.split(CHUNK)]
    return torch.cat(chunks) if chunks else torch.zeros(0, len(attributes), dtype=torch.long)


def prompted_tasks(
    split: PromptDataset, phrasebook: Phrasebook, prompts: PromptTable, seed: int
) -> list[PromptedTask]:
    """Draw the prompts of a validation or test split and add them to `prompts`.

    One prompt per interaction and task; the intents depend on the split and on `seed` alone, and are
    the same for unseen and for training phrases, for every model and for every training seed.

    Returns
    -------
    list of PromptedTask
        standard; then positive, negative, compound in unseen phrases; then the same in training
        phrases, and in hard ones where the phrasebook has such.
    """
    generator = torch.Generator().manual_seed(seed)
    interactions = split[np.arange(len(split))]
    lists = interactions[split.iid_field + split.config["LIST_SUFFIX"]]
    counts = history_counts(split.attributes, lists)
    targets = split.attributes.matrix[interactions[split.iid_field]]
    wanted, unwanted = draw_intents(targets, counts, generator)
    length = interactions[split.item_list_length_field]
    everyone = torch.arange(len(split))
    nobody_asks = torch.zeros_like(everyone)
    tasks = [PromptedTask("standard", "", everyone, nobody_asks, 0, nobody_asks.bool())]
    for number, phrases in enumerate(phrasebook.splits()):
        rng = np.random.default_rng((seed, number))
        for kind in KINDS:
            include = wanted if kind != "negative" else torch.full_like(wanted, -2)
            exclude = unwanted if kind != "positive" else torch.full_like(unwanted, -2)
            rows = ((include != -1) & (exclude != -1)).nonzero()[:, 0]
            ids = []
            for i, e in zip(include[rows].tolist(), exclude[rows].tolist(), strict=True):
                intent = Intent((i,) if i >= 0 else (), (e,) if e >= 0 else ())
                ids.append(prompts.add(phrasebook.prompt(intent, phrases, rng), intent))
            habit = wanted if kind != "negative" else unwanted
            share = counts[rows, habit[rows]] / length[rows]
            on_habit = share >= share.median() if len(share) else share.bool()
            left_out = len(split) - len(rows)
            tasks.append(PromptedTask(kind, phrases, rows, torch.tensor(ids), left_out, on_habit))
    return tasks


def known_intents(
    logged: Sequence[tuple[str, Intent | None]],
    read: Callable[[list[str]], tuple[Tensor, Tensor]] | None,
) -> list[tuple[str, Intent]]:
    """A data set's prompts; where the file says no intent, the one that is read.

    Parameters
    ----------
    read : callable or None
        As `DPR.read`; not needed where every intent is known.
    """
    open_ones = [text for text, intent in logged if intent is None]
    answers: Iterator[Intent] = iter(())
    if open_ones:
        assert read is not None
        answers = iter(
            Intent(tuple(wanted.nonzero()[:, 0].tolist()), tuple(unwanted.nonzero()[:, 0].tolist()))
            for wanted, unwanted in zip(*read(open_ones), strict=True)
        )
    return [(text, next(answers) if intent is None else intent) for text, intent in logged]


def logged_task(
    split: PromptDataset, logged: Sequence[tuple[str, Intent]], prompts: PromptTable
) -> PromptedTask:
    """The task of a split's own prompts; appends them to `prompts`.

    Parameters
    ----------
    logged : sequence of (str, Intent)
        The data set's prompts by number, every intent known.
    """
    numbers = split.inter_feat[LOGGED_FIELD]
    rows = numbers.nonzero()[:, 0]
    ids = {n: prompts.add(*logged[n]) for n in numbers[rows].unique().tolist()}
    asked = torch.tensor([ids[n] for n in numbers[rows].tolist()], dtype=torch.long)
    left_out = len(split) - len(rows)
    return PromptedTask("logged", "logged", rows, asked, left_out, torch.zeros(len(rows)).bool())


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


@dataclass(frozen=True)
class LoggedIntents:
    """What the prompts of a data set ask for, by the numbers in `LOGGED_FIELD`.

    Parameters
    ----------
    include, exclude : BoolTensor ``[n, V]``
    """

    include: Tensor
    exclude: Tensor

    @classmethod
    def of(cls, logged: Sequence[tuple[str, Intent]], n_values: int) -> LoggedIntents:
        """From the prompts of a data set, every intent known."""
        sides = ([getattr(i, side) for _, i in logged] for side in ("include", "exclude"))
        return cls(*(one_hot(side, n_values) for side in sides))


def target_intents(
    attributes: Attributes,
    item_lists: Tensor,
    targets: Tensor,
    mix: dict[str, Any],
    logged: Tensor | None = None,
    known: LoggedIntents | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw an intent for every target of a batch of training windows (global torch generator).

    A target for which the drawn kind has no valid value keeps the side that it has; where nothing is
    left it is not asked at all. A target that came with a prompt of its own is asked that.

    Parameters
    ----------
    item_lists, targets : LongTensor ``[B, L]``
        A window's items, and the item that follows each position (0: no target there).
    mix : dict
        Shares of positive, negative and compound.
    logged : LongTensor ``[B, L]``, optional
        Numbers of the prompts that the targets came with, 0 for none; `known` says what they ask for.

    Returns
    -------
    where : BoolTensor ``[B, L]``
        The n targets that got an intent.
    include, exclude : FloatTensor ``[n, V]``
    """
    where = targets > 0
    matrix = attributes.matrix.to(targets.device)
    counts = matrix[item_lists].to(torch.int32).cumsum(dim=1)[where]
    wanted, unwanted = draw_intents(matrix[targets[where]], counts)
    shares = torch.tensor([float(mix[kind]) for kind in KINDS])
    kind = torch.multinomial(shares, len(wanted), replacement=True)
    include = _marks(wanted.where(kind != 1, -1), len(attributes))
    exclude = _marks(unwanted.where(kind != 0, -1), len(attributes))
    if logged is not None and known is not None:
        numbers = logged[where]
        own = numbers > 0
        include[own], exclude[own] = known.include[numbers[own]], known.exclude[numbers[own]]
    asked = include.any(dim=1) | exclude.any(dim=1)
    where = where.clone()
    where[where.clone()] = asked
    return where, include[asked].float(), exclude[asked].float()


def _marks(values: Tensor, n_values: int) -> Tensor:
    marks = torch.zeros(len(values), n_values + 1, dtype=torch.bool)
    marks[torch.arange(len(values)), values] = True  # -1 marks the extra column
    return marks[:, :n_values]
