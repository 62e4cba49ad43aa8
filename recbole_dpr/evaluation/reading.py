"""How many of the made prompts a model reads as they were meant, and some that it does not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from recbole_dpr.evaluation.evaluate import PARTS
from recbole_dpr.metrics import DECIMALS

if TYPE_CHECKING:
    from recbole_dpr.data.prompts import PromptTable
    from recbole_dpr.data.tasks import PromptedTask
    from recbole_dpr.model.dpr import DPR

MISREAD = 4  # prompts of each task that are shown
# Values that are named at most, if asked for so often at least and misread in more than this share.
HARD_VALUES, OFTEN, MOST = 3, 5, 0.5


@torch.no_grad()
def reading(
    model: DPR, tasks: Sequence[PromptedTask], prompts: PromptTable, values: Sequence[str]
) -> dict[str, Any]:
    """Compare what the prompts of each task ask for with what is read, all values right or not.

    Parameters
    ----------
    model : DPR
        To which `set_prompts` has given the prompts.
    tasks : sequence of PromptedTask
        Logged ones must have intents that the data set says, not ones that the model has read.
    prompts : PromptTable
    values : sequence of str
        The attribute values by number.

    Returns
    -------
    dict
        ``arithmetic``: the `PromptReader.precision`; ``exact``: share of the prompts read exactly right, by part
        of metrics.json and task;
        ``misread``: a few unseen or logged prompts that are not, each with ``task``, ``prompt``, ``meant`` and
        ``read``, the last two as ``{"include": [value, ...], "exclude": [...]}``; ``hard_values``: those that
        are misread in most of these that mean them, the worst first.
    """
    exact: dict[str, dict[str, float]] = {}
    misread: list[dict[str, Any]] = []
    times = torch.zeros(2, len(values))  # that a value is meant, and misread
    for task in tasks:
        if task.phrases not in PARTS or not len(task.prompt_ids):
            continue
        read = [side.cpu() for side in model.read_prompts(task.prompt_ids)]
        meant = [side[task.prompt_ids] for side in (prompts.include, prompts.exclude)]
        wrong = (read[0] != meant[0]).any(dim=1) | (read[1] != meant[1]).any(dim=1)
        right = round(1 - float(wrong.double().mean()), DECIMALS)
        exact.setdefault(PARTS[task.phrases], {})[task.name] = right
        if task.phrases not in ("unseen", "logged"):
            continue
        for side, known in zip(read, meant, strict=True):
            times += torch.stack([known.sum(dim=0), (known & ~side).sum(dim=0)])
        texts: dict[str, int] = {}  # each once
        for row in wrong.nonzero()[:, 0].tolist():
            texts.setdefault(prompts.texts[task.prompt_ids[row]], row)
        for text, row in list(texts.items())[:MISREAD]:
            said = {"meant": _named(meant, row, values), "read": _named(read, row, values)}
            misread.append({"task": task.name, "prompt": text, **said})
    share = times[1] / times[0].clamp(min=1) * (times[0] >= OFTEN)
    worst = share.argsort(descending=True, stable=True)[:HARD_VALUES].tolist()
    hard_values = [values[value] for value in worst if share[value] > MOST]
    arithmetic = str(model.reader.precision).removeprefix("torch.")
    return {
        "arithmetic": arithmetic,
        "exact": exact,
        "misread": misread,
        "hard_values": hard_values,
    }


def _named(sides: Sequence[Tensor], row: int, values: Sequence[str]) -> dict[str, list[str]]:
    chosen = ([values[value] for value in side[row].nonzero()[:, 0].tolist()] for side in sides)
    return dict(zip(("include", "exclude"), chosen, strict=True))
