"""Real users, their prompts, and what they are recommended without and with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from recbole_dpr.data.intent import in_words
from recbole_dpr.evaluation.batches import is_promptable, prompted_batch, score_prompted
from recbole_dpr.evaluation.systems import filter_
from recbole_dpr.metrics import average_rank, top_items

if TYPE_CHECKING:
    from recbole_dpr.data.dataset import PromptDataset
    from recbole_dpr.data.prompts import PromptTable
    from recbole_dpr.data.tasks import PromptedTask

EXAMPLE_SEED = 2602  # of the draw of examples; never the training seed
HISTORY = 10  # titles of the history that an example shows

EXAMPLES = """\
Test users drawn by a fixed seed before any score was known; none was picked. ✓ marks the items that
satisfy the prompt by their true attributes, which a promptable model is not told."""

MISREAD = """## Misread

Some of the test's prompts, in unseen phrases or of the data set's own, that were not read as they were meant."""


@dataclass(frozen=True)
class Example:
    """One real user with one prompt, and the top k before and after it.

    A line of `before` and `after` is "title (values)", with a ✓ in front where the item's true
    attributes satisfy the prompt.
    """

    task: str
    user: str
    prompt: str
    history: list[str]
    target: str
    rank_before: float
    rank_after: float
    before: list[str]
    after: list[str]


@torch.no_grad()
def collect_examples(
    model: Any,
    tasks: Sequence[PromptedTask],
    config: Any,
    dataset: PromptDataset,
    prompts: PromptTable,
    *,
    per_task: int = 2,
    k: int = 10,
) -> list[Example]:
    """Draw `per_task` users of each prompted task and rank for them without and with the prompt.

    The users come from a fixed seed (`EXAMPLE_SEED`), before any score is known, so none is picked
    for looking good. A plain model has no prompted scores: its "after" is the `filter`. The
    parameters are those of `evaluate_tasks`; only tasks of unseen phrases count.
    """

    def lines(top: Tensor, scores: Tensor, allowed: list[bool]) -> list[str]:
        shown = top[scores[top] > -torch.inf].tolist()  # there may be fewer to recommend
        return [_line(dataset, item, allowed[item]) for item in shown]

    model.eval()
    rng = np.random.default_rng(EXAMPLE_SEED)
    examples = []
    for task in tasks:
        if task.phrases != "unseen" or not len(task.rows):
            continue
        drawn = torch.from_numpy(rng.permutation(len(task.rows))[:per_task])
        ids = task.prompt_ids[drawn]
        interaction = dataset.with_prompts(task.rows[drawn], ids)[np.arange(len(drawn))]
        batch = prompted_batch(model, interaction, config, dataset, prompts)
        steered = is_promptable(model)
        after = score_prompted(model, batch.interaction) if steered else filter_(batch)
        items = interaction[dataset.iid_field].to(after.device)
        rank_before, rank_after = average_rank(batch.backbone, items), average_rank(after, items)
        shown = min(k, after.shape[1] - 1)  # not all catalogues have ten items
        top_before, top_after = top_items(batch.backbone, shown), top_items(after, shown)
        users = interaction[dataset.uid_field].tolist()
        histories = interaction[config["ITEM_ID_FIELD"] + config["LIST_SUFFIX"]].tolist()
        lengths = interaction[config["ITEM_LIST_LENGTH_FIELD"]].tolist()
        for i, prompt_id in enumerate(ids.tolist()):
            history = histories[i][: lengths[i]][-HISTORY:]
            allowed = batch.allowed[i].tolist()
            examples.append(
                Example(
                    task=task.name,
                    user=str(dataset.id2token(dataset.uid_field, users[i])),
                    prompt=prompts.texts[prompt_id],
                    history=[dataset.titles[item] for item in history],
                    target=dataset.titles[int(items[i])],
                    rank_before=float(rank_before[i]),
                    rank_after=float(rank_after[i]),
                    before=lines(top_before[i], batch.backbone[i], allowed),
                    after=lines(top_after[i], after[i], allowed),
                )
            )
    return examples


def examples_page(
    names: Mapping[str, Any],
    examples: Sequence[Example],
    steered: bool,
    misread: Sequence[Mapping[str, Any]],
) -> str:
    """``examples.md``: the examples, and prompts that were misread.

    Parameters
    ----------
    names : mapping
        ``model`` and ``dataset``.
    examples : sequence of Example
    steered : bool
        Whether a promptable model ranks after the prompt, or the filter.
    misread : sequence of mappings
        ``misread`` of ``reading`` in ``metrics.json``.
    """
    after = "with the prompt" if steered else "filtered"
    parts = [f"# Examples: {names['model']} on {names['dataset']}", EXAMPLES]
    for example in examples:
        parts.append(f'## User {_cell(example.user)}, {example.task}: "{_cell(example.prompt)}"')
        parts.append("History, newest last: " + "; ".join(map(_cell, example.history)) + ".")
        parts.append(
            f"Taken next in truth: {_cell(example.target)}, at rank {example.rank_before:g} without "
            f"and {example.rank_after:g} {after}."
        )
        table = [f"| | without the prompt | {after} |", "|---:|---|---|"]
        pairs = zip_longest(example.before, example.after, fillvalue="")
        for place, pair in enumerate(pairs, start=1):
            table.append(f"| {place} | {' | '.join(map(_cell, pair))} |")
        parts.append("\n".join(table))
    return "\n\n".join(parts) + "\n" + _misread(misread)


def _line(dataset: PromptDataset, item: int, satisfies: bool) -> str:
    attributes = dataset.attributes
    values = [attributes.values[v] for v in attributes.matrix[item].nonzero().flatten().tolist()]
    return f"{'✓ ' * satisfies}{dataset.titles[item]}" + f" ({', '.join(values)})" * bool(values)


def _misread(misread: Sequence[Mapping[str, Any]]) -> str:
    if not misread:
        return ""
    rows = [
        f"| {row['task']} | {_cell(row['prompt'])} | {_asked(row['meant'])} | {_asked(row['read'])} |"
        for row in misread
    ]
    return "\n".join(
        ["", MISREAD, "", "| task | prompt | meant | read |", "|---|---|---|---|", *rows, ""]
    )


def _asked(intent: Mapping[str, Sequence[str]]) -> str:
    return _cell(in_words(intent) or "nothing")


def _cell(text: str) -> str:
    """Return text that cannot break a markdown table or heading."""
    return " ".join(text.split()).replace("|", "\\|")
