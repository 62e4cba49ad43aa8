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


class PromptMasks:
    """Which items the prompts of a batch allow and forbid, for `PromptCollector`.

    Parameters
    ----------
    prompt_field : str
    attributes : Attributes or None
        None for a model that takes no prompts.

    Attributes
    ----------
    prompts : PromptTable or None
        The prompts of the split that is evaluated; None is none: all is allowed.
    """

    def __init__(self, prompt_field: str, attributes: Any) -> None:
        self.prompt_field, self.attributes = prompt_field, attributes
        self.prompts: PromptTable | None = None

    def __call__(self, interaction: Interaction) -> tuple[Tensor, Tensor] | tuple[None, None]:
        """Allowed and forbidden items, two bool ``[B, n_items]``; None without prompts."""
        if self.prompts is None:
            return None, None
        ids = interaction[self.prompt_field].cpu()
        include, exclude = self.prompts.include[ids], self.prompts.exclude[ids]
        return self.attributes.allowed(include, exclude), self.attributes.forbidden(exclude)


def validate_prompted(
    model: Any,
    training: PromptedTraining,
    masks: PromptMasks,
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
    masks.prompts = training.prompts
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
    masks.prompts = None
    return {**{name: sum(values) / len(values) for name, values in together.items()}, **single}
