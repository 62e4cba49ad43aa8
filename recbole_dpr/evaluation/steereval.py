"""Delta AUC: how far a prompt lifts or sinks the items of a value, over the whole ranking.

The idea of SteerEval (arXiv 2601.21105): every value of the catalogue is asked for ("increase") and
against ("decrease") for the same users, whatever they took next. Before is the backbone's ranking,
after is a system's with the prompt; the AUC is the chance that an item with the value stands above one
without. An increase should raise it, a decrease lower it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor

from recbole_dpr.data.intent import Intent
from recbole_dpr.data.tasks import PromptedTask
from recbole_dpr.evaluation.batches import prompted_batches
from recbole_dpr.evaluation.systems import System
from recbole_dpr.metrics import DECIMALS

if TYPE_CHECKING:
    from recbole_dpr.data.attributes import Attributes
    from recbole_dpr.data.dataset import PromptDataset
    from recbole_dpr.data.phrasebook import Phrasebook
    from recbole_dpr.data.prompts import PromptTable

RANKED_AT_ONCE = 256  # rows, to bound the memory of the ranks


def auc(scores: Tensor, marked: Tensor) -> Tensor:
    """Return the chance that a marked item scores above one that is not, double ``[batch]``.

    From the rank sum (Mann and Whitney); a tie counts half. What scores minus infinity, and so is never
    recommended, takes no part; where nothing is left on a side, the chance is a half.

    Parameters
    ----------
    scores : Tensor ``[batch, n]``
    marked : BoolTensor ``[batch, n]``
        Some of each row, but not all.
    """
    shown = scores > -torch.inf
    marked = marked.to(shown.device) & shown
    sums = [
        torch.from_numpy(rankdata(part.cpu().numpy(), axis=1)).masked_fill(~own, 0).sum(dim=1)
        for part, own in zip(
            scores.split(RANKED_AT_ONCE), marked.cpu().split(RANKED_AT_ONCE), strict=True
        )
    ]
    n, others = marked.sum(dim=1).cpu(), (shown & ~marked).sum(dim=1).cpu()
    below = (~shown).sum(dim=1).cpu()  # of each marked item's rank
    above = torch.cat(sums) - n * below - n * (n + 1) / 2
    return torch.where(n * others > 0, above / (n * others).clamp(min=1), 0.5)


def steering_tasks(
    split: PromptDataset, phrasebook: Phrasebook, prompts: PromptTable, seed: int, n_users: int
) -> list[PromptedTask]:
    """Ask a fixed sample of users for and against every value; adds the prompts to `prompts`.

    Sample and prompts (unseen phrases) depend on the split and on `seed` alone. A value that all items
    have, or none, cannot be steered and is left out.

    Returns
    -------
    list of PromptedTask
        "increase" and "decrease", with a row for each user and value.
    """
    generator = torch.Generator().manual_seed(seed)
    users = torch.randperm(len(split), generator=generator)[:n_users].sort().values
    matrix = split.attributes.matrix[1:]
    values = (matrix.any(dim=0) & ~matrix.all(dim=0)).nonzero()[:, 0]
    tasks = []
    for number, direction in enumerate(("increase", "decrease")):
        rng = np.random.default_rng((seed, number))
        ids = []
        for value in values.repeat_interleave(len(users)).tolist():
            intent = Intent((value,)) if direction == "increase" else Intent((), (value,))
            ids.append(prompts.add(phrasebook.prompt(intent, "unseen", rng), intent))
        rows = users.repeat(len(values))
        asked = torch.tensor(ids, dtype=torch.long)
        tasks.append(
            PromptedTask(direction, "unseen", rows, asked, 0, torch.zeros(len(ids)).bool())
        )
    return tasks


@torch.no_grad()
def delta_auc(
    systems: Mapping[str, System],
    tasks: Sequence[PromptedTask],
    model: Any,
    config: Any,
    dataset: PromptDataset,
    prompts: PromptTable,
) -> dict[str, Any]:
    """Return the mean change of the AUC of a value's items under prompts for and against it.

    Parameters
    ----------
    systems : mapping of name to System
    tasks : sequence of PromptedTask
        From `steering_tasks`.
    model, config, dataset, prompts
        As `evaluate_tasks` takes them.

    Returns
    -------
    dict
        ``increase`` and ``decrease`` -> system -> ``{"mean": ..., "values": {value: ...}}``, over the
        users; ``users``, their number.
    """
    model.eval()
    attributes = dataset.attributes
    names, matrix = value_names(attributes), attributes.matrix[1:].cpu()
    result: dict[str, Any] = {"users": 0}
    for task in tasks:
        sums = {name: torch.zeros(len(names), dtype=torch.double) for name in systems}
        asked = torch.zeros(len(names), dtype=torch.double)
        for batch, _, _ in prompted_batches(model, task, config, dataset, prompts):
            value = (batch.include | batch.exclude).float().argmax(dim=1)
            has = matrix[:, value].T
            before = auc(batch.backbone[:, 1:], has)
            asked.index_add_(0, value, torch.ones_like(before))
            for name, system in systems.items():
                sums[name].index_add_(0, value, auc(system(batch)[:, 1:], has) - before)
        counted = asked.nonzero()[:, 0].tolist()
        result[task.name] = {
            name: _summary({names[v]: float(total[v] / asked[v]) for v in counted})
            for name, total in sums.items()
        }
        result["users"] = len(task.rows.unique())
    return result


def value_names(attributes: Attributes) -> list[str]:
    """The values as they stand in the data, each with its field where there are several."""
    if len(set(attributes.fields)) == 1:
        return list(attributes.values)
    pairs = zip(attributes.fields, attributes.values, strict=True)
    return [f"{field}: {value}" for field, value in pairs]


def _summary(values: dict[str, float]) -> dict[str, Any]:
    mean = sum(values.values()) / len(values)
    rounded = {name: round(value, DECIMALS) for name, value in values.items()}
    return {"mean": round(mean, DECIMALS), "values": rounded}
