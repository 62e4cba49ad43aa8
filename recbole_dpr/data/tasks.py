"""The prompted evaluation tasks: which rows of a split are asked, and what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recbole_dpr.data.dataset import LOGGED_FIELD, PromptDataset
from recbole_dpr.data.draws import KINDS, draw_intents, history_counts
from recbole_dpr.data.intent import Intent
from recbole_dpr.data.phrasebook import Phrasebook
from recbole_dpr.data.prompts import PromptTable


@dataclass(frozen=True)
class PromptedTask:
    """One evaluation task: which rows of a split are asked, and with which prompt.

    Parameters
    ----------
    name : str
        "standard", "positive", "negative", "compound" or "logged"; "increase" or "decrease" where the delta
        AUC is measured.
    phrases : str
        "unseen", "train" or "hard"; "logged" for what users really asked; "" for the standard task,
        which has no prompt.
    rows, prompt_ids : LongTensor ``[n]``
    left_out : int
        Rows for which no valid prompt exists.
    on_habit : BoolTensor ``[n]``
        Whether the prompted value's share of the user's history is at or above the median, and not zero.
    """

    name: str
    phrases: str
    rows: Tensor
    prompt_ids: Tensor
    left_out: int
    on_habit: Tensor


def prompted_tasks(
    split: PromptDataset,
    phrasebook: Phrasebook,
    prompts: PromptTable,
    seed: int,
    only: str | None = None,
    n_rows: int | None = None,
) -> list[PromptedTask]:
    """Draw the prompts of a validation or test split and add them to `prompts`.

    One prompt per interaction and task; the intents depend on the split and on `seed` alone, and are
    the same for unseen and for training phrases, for every model and for every training seed.

    Parameters
    ----------
    split : PromptDataset
    phrasebook : Phrasebook
    prompts : PromptTable
    seed : int
    only : str, optional
        The one kind of phrases to draw; None is all that the phrasebook has.
    n_rows : int, optional
        Interactions that are asked, a sample that depends on `seed` alone; None is all.

    Returns
    -------
    list of PromptedTask
        standard; then positive, negative, compound in unseen phrases; then the same in training
        phrases, and in hard ones where the phrasebook has such.
    """
    generator = torch.Generator().manual_seed(seed)
    interactions = split.last_items()
    lists = interactions[split.iid_field + split.config["LIST_SUFFIX"]]
    counts = history_counts(split.attributes, lists)
    targets = split.attributes.matrix[interactions[split.iid_field]]
    wanted, unwanted = draw_intents(targets, counts, generator)
    length = interactions[split.item_list_length_field]
    everyone = torch.arange(len(split))
    nobody_asks = torch.zeros_like(everyone)
    tasks = [PromptedTask("standard", "", everyone, nobody_asks, 0, nobody_asks.bool())]
    asked = torch.ones(len(split), dtype=torch.bool)
    if n_rows is not None:
        asked[torch.randperm(len(split), generator=generator)[n_rows:]] = False
    for number, phrases in enumerate(phrasebook.splits()):
        if only not in (None, phrases):
            continue
        rng = np.random.default_rng((seed, number))
        for kind in KINDS:
            include = wanted if kind != "negative" else torch.full_like(wanted, -2)
            exclude = unwanted if kind != "positive" else torch.full_like(unwanted, -2)
            rows = (asked & (include != -1) & (exclude != -1)).nonzero()[:, 0]
            ids = []
            for i, e in zip(include[rows].tolist(), exclude[rows].tolist(), strict=True):
                intent = Intent((i,) if i >= 0 else (), (e,) if e >= 0 else ())
                ids.append(prompts.add(phrasebook.prompt(intent, phrases, rng), intent))
            habit = wanted if kind != "negative" else unwanted
            share = counts[rows, habit[rows]] / length[rows]
            # Where most share nothing, as with thousands of brands, those who do are on habit.
            on_habit = (share >= share.median()) & (share > 0) if len(share) else share.bool()
            left_out = int(asked.sum()) - len(rows)
            asks = torch.tensor(ids, dtype=torch.long)  # also where nobody is asked
            tasks.append(PromptedTask(kind, phrases, rows, asks, left_out, on_habit))
    return tasks


def validation_tasks(
    split: PromptDataset, phrasebook: Phrasebook, seed: int, n_rows: int | None = None
) -> tuple[list[PromptedTask], PromptTable]:
    """The prompted tasks of the validation split in training phrases, and their prompts.

    Stages 2 and 3 are validated with them, and compared systems are tuned. ``seed`` is that of the
    test's tasks, which get other draws; ``n_rows`` is as in `prompted_tasks`.
    """
    prompts = PromptTable(len(split.attributes))
    _, *tasks = prompted_tasks(split, phrasebook, prompts, seed + 1, only="train", n_rows=n_rows)
    return tasks, prompts


def logged_task(
    split: PromptDataset,
    logged: Sequence[tuple[str, Intent]],
    prompts: PromptTable,
    seed: int,
    n_rows: int | None = None,
) -> PromptedTask:
    """The task of a split's own prompts; appends them to `prompts`.

    Parameters
    ----------
    logged : sequence of (str, Intent)
        The data set's prompts by number, every intent known.
    seed, n_rows
        As in `prompted_tasks`.
    """
    numbers = split.inter_feat[LOGGED_FIELD]
    rows = numbers.nonzero()[:, 0]
    left_out = len(split) - len(rows)
    if n_rows is not None:
        generator = torch.Generator().manual_seed(seed)
        rows = rows[torch.randperm(len(rows), generator=generator)[:n_rows].sort().values]
    ids = {n: prompts.add(*logged[n]) for n in numbers[rows].unique().tolist()}
    asked = torch.tensor([ids[n] for n in numbers[rows].tolist()], dtype=torch.long)
    return PromptedTask("logged", "logged", rows, asked, left_out, torch.zeros(len(rows)).bool())
