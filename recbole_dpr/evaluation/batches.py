"""From RecBole's loader to what the compared systems look at."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from recbole.data.dataloader import FullSortEvalDataLoader
from recbole.utils import set_color
from torch import Tensor
from tqdm import tqdm

from recbole_dpr.evaluation.systems import PromptedBatch, hide_padding
from recbole_dpr.model.backbone import own_scores
from recbole_dpr.model.steering import steering_of

if TYPE_CHECKING:
    from recbole_dpr.data.dataset import PromptDataset
    from recbole_dpr.data.prompts import PromptTable
    from recbole_dpr.data.tasks import PromptedTask


def prompted_batches(
    model: Any,
    task: PromptedTask,
    config: Any,
    dataset: PromptDataset,
    prompts: PromptTable,
) -> Iterator[tuple[PromptedBatch, Tensor, Tensor]]:
    """Batches of a task's rows; with each RecBole's ``positive_u`` and ``positive_i`` ``[batch]``.

    The parameters are those of `evaluate_tasks`.
    """
    split = dataset.with_prompts(task.rows, task.prompt_ids)
    loader = FullSortEvalDataLoader(config, split, None)  # no candidates are drawn
    title = set_color(f"Evaluate {task.name} {task.phrases}".strip(), "pink")
    for interaction, _, users, items in tqdm(
        loader, ncols=100, desc=title, disable=not config["show_progress"]
    ):
        yield prompted_batch(model, interaction, config, dataset, prompts), users, items


def prompted_batch(
    model: Any, interaction: Any, config: Any, dataset: PromptDataset, prompts: PromptTable
) -> PromptedBatch:
    """Score one of RecBole's batches with the backbone and look up what its prompts ask for.

    The parameters are those of `evaluate_tasks`; `interaction` carries the prompt ids.
    """
    interaction = interaction.to(config["device"])
    ids = interaction[config["PROMPT_ID_FIELD"]].cpu()
    backbone = model.backbone.model if hasattr(model, "backbone") else model
    alone = model.backbone_scores if is_promptable(model) else partial(own_scores, model)
    return PromptedBatch(
        backbone=alone(interaction),
        include=prompts.include[ids],
        exclude=prompts.exclude[ids],
        attributes=dataset.attributes,
        interaction=interaction,
        prompt_ids=ids,
        history=interaction[config["ITEM_ID_FIELD"] + config["LIST_SUFFIX"]],
        to_logits=steering_of(type(backbone)).logits,
    )


def is_promptable(model: Any) -> bool:
    """Whether a model ranks by prompts, and can leave them out: `DPR`, or what scores as it does."""
    return hasattr(model, "backbone_scores")


def score_prompted(model: Any, interaction: Any) -> Tensor:
    """Return the model's own scores for its prompts, ``[batch, n_items]``."""
    return hide_padding(model.full_sort_predict(interaction))
