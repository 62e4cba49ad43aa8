"""Validation on the prompted tasks, for stages 2 and 3."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from recbole.data.dataloader import FullSortEvalDataLoader
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_dpr.data.phrasebook import Phrasebook
from recbole_dpr.data.prompts import PromptTable
from recbole_dpr.data.tasks import PromptedTask
from recbole_dpr.metrics import PromptCollector

Result = dict[str, float]
Evaluate = Callable[[Any], Result]


@dataclass(frozen=True)
class PromptedTraining:
    """What stages 2 and 3 need beside the interactions.

    Parameters
    ----------
    phrasebook : Phrasebook
    tasks : list of PromptedTask
        The prompted tasks of the validation split, in training phrases.
    prompts : PromptTable
        Their prompts.
    """

    phrasebook: Phrasebook
    tasks: list[PromptedTask]
    prompts: PromptTable


def validate_prompted(
    model: Any,
    training: PromptedTraining,
    collector: PromptCollector,
    valid_data: FullSortEvalDataLoader,
    evaluate: Evaluate,
) -> Result:
    """Figures of each prompted task ("positive_ndcg@10"), and their means ("ndcg@10").

    Parameters
    ----------
    evaluate : callable
        From a loader to its figures.
    """
    model.set_prompts(training.prompts.texts)
    prompts, attributes = training.prompts, model.attributes

    def masks(interaction: Interaction) -> tuple[Tensor, Tensor]:
        ids = interaction[model.prompt_field].cpu()
        include, exclude = prompts.include[ids], prompts.exclude[ids]
        return attributes.allowed(include, exclude), attributes.forbidden(exclude)

    collector.masks = masks
    single: Result = {}
    together: dict[str, list[float]] = {}
    for task in training.tasks:
        if not len(task.rows):  # such as rejections, where the items have one value
            continue
        asked = valid_data._dataset.with_prompts(task.rows, task.prompt_ids)
        loader = FullSortEvalDataLoader(valid_data.config, asked, None)
        for name, value in evaluate(loader).items():
            single[f"{task.name}_{name}"] = float(value)
            together.setdefault(name, []).append(float(value))
    collector.masks = None
    return {**{name: sum(values) / len(values) for name, values in together.items()}, **single}
