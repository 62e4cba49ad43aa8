"""The systems that DPR is compared with, each one small pure function on tensors.

A *system* takes a `PromptedBatch` and returns scores ``[batch, n_items]``. Only their order counts,
and equal scores mean a tie. The filters know the true attributes of every item and exactly what is
wanted, where DPR sees nothing but the prompt's text; say so wherever the two stand together.

Those of `baselines` always run; option ``compare`` adds others (compared.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from recbole_dpr.data.draws import history_counts

if TYPE_CHECKING:
    from recbole.data.interaction import Interaction

    from recbole_dpr.data.attributes import Attributes


@dataclass
class PromptedBatch:
    """What a system may look at: one batch of users, each with a prompt.

    Parameters
    ----------
    backbone : Tensor ``[batch, n_items]``
        The backbone's scores without the prompt, minus infinity for what it never recommends. Column 0 (padding)
        becomes that.
    include, exclude : BoolTensor ``[batch, n_values]``
        The intent: wanted and unwanted attribute values.
    attributes : Attributes
        The true attributes of the catalogue.
    interaction : Interaction, optional
        RecBole's batch, for the model itself.
    prompt_ids : LongTensor ``[batch]``, optional
        Ids of the `PromptTable` that the tasks were drawn with; 0 is none.
    history : LongTensor ``[batch, L]``, optional
        Items, oldest first, zeros behind them.
    to_logits : callable
        From the backbone's scores to logits.
    """

    backbone: Tensor
    include: Tensor
    exclude: Tensor
    attributes: Attributes
    interaction: Interaction | None = None
    prompt_ids: Tensor | None = None
    history: Tensor | None = None
    to_logits: Callable[[Tensor], Tensor] = lambda scores: scores

    def __post_init__(self) -> None:
        self.backbone = hide_padding(self.backbone)

    def hide(self, scores: Tensor) -> Tensor:
        """A copy of scores ``[batch, n_items]`` in which nothing ranks that the backbone never recommends.

        That is padding, and the user's history where the run excludes it.
        """
        return scores.masked_fill(self.backbone == -torch.inf, -torch.inf)

    @cached_property
    def logits(self) -> Tensor:
        """The backbone's scores on the scale of a softmax, ``[batch, n_items]``: in the same order, but for ties."""
        return self.hide(self.to_logits(self.backbone))

    @cached_property
    def allowed(self) -> Tensor:
        """Items that the intent allows, bool ``[batch, n_items]``."""
        return self.attributes.allowed(self.include, self.exclude).to(self.backbone.device)

    @cached_property
    def forbidden(self) -> Tensor:
        """Items that the intent forbids, bool ``[batch, n_items]``."""
        return self.attributes.forbidden(self.exclude).to(self.backbone.device)

    @cached_property
    def ranks(self) -> Tensor:
        """The backbone's `whole_numbers`, shared by the filters."""
        return whole_numbers(self.backbone)


System = Callable[[PromptedBatch], Tensor]

# What lifts one of the `whole_numbers` of scores above all others.
ABOVE = 2**33

# What each system is told about the prompt, which reports and plots say beside every figure, and what it does.
SYSTEMS = {
    "DPR": ("the prompt's text", ""),
    "backbone": ("no prompt", ""),
    "filter": (
        "true attributes",
        "the backbone's ranking with all allowed items first and all forbidden ones last.",
    ),
    "calibrated_filter": (
        "true attributes",
        "the same after dividing each item's probability by its number of values where one is wanted, and by how many "
        "of the history's values it lacks where one is rejected, which is the best there is for prompts drawn this "
        "way where the backbone's probabilities are true (they are not quite: DPR may pass it).",
    ),
    "post_filter": (
        "true attributes",
        "only the top of the backbone's ranking is filtered: as many items as the name says, or "
        "`post_filter_k` of config.yaml.",
    ),
    "additive": (
        "the prompt's text and kind",
        "the backbone's scores plus a weight times the cosine of prompt and item text; the weight was "
        "tuned on the validation split, for each kind of prompt.",
    ),
    "semantic": ("the prompt's text", "the cosine of prompt and item text alone."),
    "rerank": (
        "the prompt's text",
        "the top of the backbone's ranking, as many items as the name says, in the order of "
        "`rerank_model` of config.yaml, or of the cosine where that is empty.",
    ),
}


def sees(system: str) -> str:
    """What a system is told about the prompt, or "" where that is not known."""
    return SYSTEMS.get(family(system), ("", ""))[0]


def described(systems: Collection[str]) -> list[str]:
    """A line of markdown for each of those that DPR is compared with."""
    present = {family(system) for system in systems}
    return [
        f"- `{name}` sees {told}: {does}"
        for name, (told, does) in SYSTEMS.items()
        if does and name in present
    ]


def family(system: str) -> str:
    """A system's name without the number of items that it reorders: "rerank" of "rerank_20"."""
    return re.sub(r"_[0-9]+$", "", system)


def hide_padding(scores: Tensor) -> Tensor:
    """Return a copy with item 0 at minus infinity (as RecBole's ``_full_sort_batch_eval``)."""
    scores = scores.clone()
    scores[:, 0] = -torch.inf
    return scores


def whole_numbers(scores: Tensor) -> Tensor:
    """Whole numbers from -`ABOVE` / 2 up to that in the order of the scores, ties ties, float64 of their shape.

    They can be shifted without rounding: adding an offset to the scores themselves makes ties of near
    ones, and can even swap them.
    """
    if scores.dtype == torch.float64:
        return dense_ranks(scores)
    # Read as whole numbers, the bits of floats rise with them, or fall where they are negative. -0 becomes 0.
    bits = (scores.float() + 0.0).view(torch.int32)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).double()


def dense_ranks(scores: Tensor) -> Tensor:
    """Number the distinct scores of each row from 0 (lowest) up, float64 ``[batch, n_items]``."""
    # On a CPU NumPy sorts in half the time.
    on_cpu = scores.device.type == "cpu"
    order = torch.from_numpy(np.argsort(scores.numpy())) if on_cpu else scores.argsort(dim=1)
    ordered = scores.gather(1, order)
    higher = torch.zeros_like(ordered, dtype=torch.float64)
    higher[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    return torch.zeros_like(higher).scatter_(1, order, higher.cumsum(dim=1))


def lift(batch: PromptedBatch, numbers: Tensor, first: Tensor) -> Tensor:
    """Put the items of the mask `first` before all others, both in the order of their `whole_numbers`.

    No other item is pushed to minus infinity, so that a list fills up with the others in their order where
    fewer than k items are in the mask.
    """
    return batch.hide(numbers.add(first, alpha=ABOVE))


def sort_by_intent(batch: PromptedBatch, numbers: Tensor) -> Tensor:
    """Put allowed items first, forbidden ones last, each in the order of their `whole_numbers`."""
    lifted = lift(batch, numbers, batch.allowed)
    if batch.include.any() and batch.exclude.any():  # else there is nothing between the two
        lifted.add_(batch.forbidden, alpha=-ABOVE)
    return lifted


def backbone(batch: PromptedBatch) -> Tensor:
    """Ignore the prompt."""
    return batch.backbone


def filter_(batch: PromptedBatch) -> Tensor:
    """Filter the whole catalogue: allowed items first, then those not forbidden, each in the backbone's order."""
    return sort_by_intent(batch, batch.ranks)


def calibrated_filter(batch: PromptedBatch) -> Tensor:
    """Filter by log P(item) + log P(wish | item), for wishes as `draw_intents` draws them.

    A wanted value is drawn uniformly from the target's values; a rejected one by its frequency in the history from
    those that the target lacks. So P(wish | item) is one over the number of the item's values, and one over how often
    the history has values that the item lacks: with these, what a perfect backbone allows is ranked best (Bayes).
    Values are those of all fields that prompts may ask for.
    """
    # log P(item) up to the softmax's normaliser, which shifts a whole row and so no order in it.
    calibrated = batch.logits.double()
    draws = [(batch.include, batch.attributes.n_values_of.expand(len(calibrated), -1))]
    if batch.history is not None and batch.exclude.any():
        counts = history_counts(batch.attributes, batch.history.cpu())
        has = batch.attributes.weighted(counts)
        draws.append((batch.exclude, counts.sum(dim=1, keepdim=True) - has))
    for side, many in draws:
        asked = side.any(dim=1, keepdim=True)
        calibrated = calibrated - (asked * many.clamp(min=1).double().log()).to(calibrated.device)
    return sort_by_intent(batch, whole_numbers(calibrated))


def post_filter(batch: PromptedBatch, k: int) -> Tensor:
    """Filter the backbone's top k only: its allowed items first, then all others in their order.

    An item that ties with the k-th counts as in the top k.
    """
    real = batch.backbone[:, 1:]
    kth = real.topk(min(k, real.shape[1]), dim=1).values[:, -1:]
    return lift(batch, batch.ranks, batch.allowed & (batch.backbone >= kth))


def baselines(config: Any) -> dict[str, System]:
    """Return the systems that always run by the names that reports and ``metrics.json`` use."""
    return {
        "backbone": backbone,
        "filter": filter_,
        "calibrated_filter": calibrated_filter,
        "post_filter": partial(post_filter, k=config["post_filter_k"]),
    }
