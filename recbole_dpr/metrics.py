"""What is measured on a ranked list, as RecBole metrics and a RecBole collector.

`Satisfied` and `Violation` join RecBole's registry, so that its own `Evaluator` and the
``stage<n>_valid_metric`` of stages 2 and 3 know them. `PromptCollector` replaces RecBole's collector where ties matter: RecBole
ranks with ``torch.topk``, whose order among equal scores is arbitrary, and a model that gives every
item the same score could look good. Here ties rank at their average.

Checked against RecBole 1.2.1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from recbole.data.interaction import Interaction
from recbole.evaluator import register
from recbole.evaluator.base_metric import TopkMetric
from recbole.evaluator.collector import Collector, DataStruct
from torch import Tensor

from recbole_dpr.errors import DPRError

METRICS = ("NDCG", "Recall", "MRR", "Hit", "Precision", "Satisfied", "Violation")
DECIMALS = 8  # of figures; RecBole's metric_decimal_place (4) is too coarse to compare by
PER_USER = ("rec.topk", "rec.satisfied", "rec.violated", "rec.rank")

Masks = Callable[[Interaction], tuple[Tensor, Tensor]]


class _ShareOfTopK(TopkMetric):
    """Mean share of the first k items that carry a mark; `marks` names the collected tensor."""

    name: str
    marks: str

    def calculate_metric(self, dataobject: DataStruct) -> dict[str, float]:
        """Return ``{"<name>@<k>": mean over the users}`` for every k in ``topk``."""
        marks = dataobject.get(self.marks).numpy().astype(np.float64)
        return self.topk_result(self.name, self.metric_info(marks))

    def metric_info(self, pos_index: np.ndarray, pos_len: np.ndarray | None = None) -> np.ndarray:
        """Return the share among the first 1, 2, ... items, ``[n_users, max(topk)]``."""
        return pos_index.cumsum(axis=1) / np.arange(1, pos_index.shape[1] + 1)


class Satisfied(_ShareOfTopK):
    """Satisfied@k: share of the top k that the prompt's intent allows (design: protocol)."""

    name = "satisfied"
    marks = "rec.satisfied"
    metric_need = ("rec.satisfied",)


class Violation(_ShareOfTopK):
    """Violation@k: share of the top k that the prompt's intent forbids. Smaller is better."""

    smaller = True
    name = "violation"
    marks = "rec.violated"
    metric_need = ("rec.violated",)


def register_metrics() -> None:
    """Add `Satisfied` and `Violation` to RecBole's registry; calling it again changes nothing.

    RecBole fills the same four tables from its own module in
    ``recbole.evaluator.register.cluster_info``. Must run before a ``Config`` that names them is made.
    """
    for metric in (Satisfied, Violation):
        register.metrics_dict[metric.name] = metric
        register.metric_information[metric.name] = metric.metric_need
        register.metric_types[metric.name] = metric.metric_type
        if metric.smaller and metric.name not in register.smaller_metrics:
            register.smaller_metrics.append(metric.name)


def top_items(scores: Tensor, k: int) -> Tensor:
    """Return the ids of the k best items, best first, ``[batch, k]``; item 0 (padding) never ranks.

    Parameters
    ----------
    scores : Tensor ``[batch, n_items]``

    Raises
    ------
    DPRError
        If the catalogue has fewer than k items.
    """
    n_real = scores.shape[1] - 1
    if k > n_real:
        raise DPRError(f"the top {k} of a catalogue of {n_real} items was asked for: lower `topk`")
    return scores[:, 1:].topk(k, dim=1).indices + 1


def average_rank(scores: Tensor, items: Tensor) -> Tensor:
    """Return the rank of one item per row, from 1, float ``[batch]``.

    Rank = 1 + number of greater scores + half the number of *other* equal ones: the mean over all
    orders of the tie. Item 0 (padding) is not counted. What scores minus infinity is never recommended: behind all.

    Parameters
    ----------
    scores : Tensor ``[batch, n_items]``
    items : LongTensor ``[batch]``, each from 1 to ``n_items - 1``
    """
    own = scores.gather(1, items[:, None])
    real = scores[:, 1:]
    # Summed as int32, a sixth of the time of torch's own choice.
    greater = (real > own).sum(dim=1, dtype=torch.int32)
    others = (real == own).sum(dim=1, dtype=torch.int32) - 1
    rank = 1 + greater + others / 2
    return rank.where(own[:, 0] > -torch.inf, real.shape[1] + 1)


def ndcg_gain(rank: Tensor, k: int) -> Tensor:
    """Return the NDCG@k of users with one target each, double, of the shape of `rank`.

    Parameters
    ----------
    rank : Tensor
        From `average_rank`; half a rank counts as the worse one, as in `PromptCollector`.
    """
    place = rank.double().ceil()
    return torch.where(place <= k, 1 / torch.log2(place + 1), 0.0)


class PromptCollector(Collector):
    """RecBole's collector with ties at their average rank and the prompt's intent.

    Collects per user, for the evaluator and for tests of significance:

    ``rec.topk`` int ``[n, max(topk) + 1]``
        RecBole's format: a one where the target stands, and the number of targets. The target stands
        at its average rank among ties; half a rank counts as the worse one (2.5 is place 3).
    ``rec.satisfied``, ``rec.violated`` float ``[n, max(topk)]``
        One where the item at that place is allowed (forbidden) by the intent. Where items tie for a
        place, the share of them that is allowed (forbidden).
    ``rec.rank`` float ``[n]``
        The target's average rank, halves kept.

    Parameters
    ----------
    config : mapping with ``metrics``, ``topk``, ``eval_args`` and ``device``
    label : str
        Whose scores these are, for error messages.
    masks : callable, optional
        Gives ``(allowed, forbidden)``, both bool ``[batch, n_items]`` or None, from an interaction, where
        the caller (RecBole's ``Trainer``) passes none. Without either, all is allowed, nothing forbidden.
    """

    def __init__(self, config: Any, label: str = "the model", masks: Masks | None = None) -> None:
        super().__init__(config)
        self.label = label
        self.masks = masks
        # This class fills rec.topk itself; what other metrics need still comes from RecBole.
        setattr(self.register, "rec.topk", False)
        # Batch by batch: RecBole's `DataStruct` copies all that it has with every batch that it is given.
        self._per_user: dict[str, list[Tensor]] = {}

    def eval_batch_collect(
        self,
        scores_tensor: Tensor,
        interaction: Interaction,
        positive_u: Tensor,
        positive_i: Tensor,
        allowed: Tensor | None = None,
        forbidden: Tensor | None = None,
    ) -> None:
        """Collect one batch; as RecBole's method, plus the two masks ``[batch, n_items]``.

        Raises
        ------
        DPRError
            If a score is NaN, a user has not exactly one target (leave-one-out), or the catalogue is
            smaller than the longest list asked for.
        """
        n_users = len(scores_tensor)
        self._check(scores_tensor, positive_u)
        super().eval_batch_collect(scores_tensor, interaction, positive_u, positive_i)
        if allowed is None and forbidden is None and self.masks is not None:
            allowed, forbidden = self.masks(interaction)

        k = max(self.topk)
        rank = average_rank(scores_tensor, positive_i.to(scores_tensor.device))
        places = torch.arange(1, k + 1, device=rank.device)
        hit = rank.ceil()[:, None] == places
        one_target = torch.ones(n_users, 1, dtype=torch.int, device=rank.device)

        n_real = scores_tensor.shape[1] - 1
        # One more, where there is one: it may tie with the last.
        best = top_items(scores_tensor, k if k >= n_real else k + 1)
        top, tied = best[:, :k], _tied(scores_tensor, best)
        nothing = torch.zeros(n_users, k, device=top.device)
        satisfied, violated = 1 - nothing, nothing
        if allowed is not None:
            satisfied = _expected(allowed, scores_tensor, top, tied)
        if forbidden is not None:
            violated = _expected(forbidden, scores_tensor, top, tied)
        shown = scores_tensor.gather(1, top) > -torch.inf  # there may be fewer than k to recommend
        batch = {
            "rec.rank": rank,
            "rec.topk": torch.cat([hit.int(), one_target], dim=1),
            "rec.satisfied": satisfied * shown,
            "rec.violated": violated * shown,
        }
        for key, values in batch.items():
            self._per_user.setdefault(key, []).append(values.detach())

    def get_data_struct(self) -> DataStruct:
        """Return what was collected, on the CPU, and start afresh."""
        collected = super().get_data_struct()
        for key, batches in self._per_user.items():
            collected.set(key, torch.cat(batches).cpu())
        self._per_user = {}
        return collected

    def _check(self, scores: Tensor, positive_u: Tensor) -> None:
        # The largest of numbers and a NaN is NaN, and found in a fiftieth of the time of asking each.
        broken = int(scores[:, 1:].amax(dim=1).isnan().sum())
        if broken:
            raise DPRError(
                f"{self.label} gave NaN scores to {broken} of {len(scores)} users: its training has "
                "diverged; look for the loss in the log of its run folder and lower the learning rate"
            )
        if not torch.equal(positive_u.cpu(), torch.arange(len(scores))):
            raise DPRError(
                "each evaluated user needs exactly one target: "
                "use the leave-one-out split (eval_args: {split: {'LS': 'valid_and_test'}})"
            )


def _tied(scores: Tensor, best: Tensor) -> list[int]:
    """The rows of ``best [batch, n]``, in the order of their scores, in which two items score the same."""
    reached = scores.gather(1, best)
    return (reached[:, 1:] == reached[:, :-1]).any(dim=1).nonzero().squeeze(1).tolist()


def _expected(marked: Tensor, scores: Tensor, top: Tensor, tied: list[int]) -> Tensor:
    """Return for each place of the top k the share of marked items among those that tie for it.

    Without ties that is one or zero. `marked` is bool ``[batch, n_items]``, `top` ``[batch, k]``; `tied`
    are the rows with ties at any of the places, or between the last and what follows.
    """
    marked = marked.to(top.device)
    share = marked.gather(1, top).float()
    for row in tied:
        same = scores[row, 1:] == scores[row, top[row], None]
        share[row] = (same & marked[row, 1:]).sum(dim=1) / same.sum(dim=1)
    return share
