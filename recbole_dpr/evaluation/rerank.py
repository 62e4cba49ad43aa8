"""Re-ranking: the backbone's top k in the order of a scorer that reads texts.

A *scorer* takes a `PromptedBatch` and candidates ``[batch, k]`` (item ids) and returns a score for
each, ``[batch, k]``. The models that can be one stand in scorers.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from recbole_dpr.errors import DPRError
from recbole_dpr.evaluation.systems import ABOVE, PromptedBatch, System, whole_numbers
from recbole_dpr.evaluation.text_systems import TextSimilarity

Scorer = Callable[[PromptedBatch, Tensor], Tensor]


class Candidates:
    """The backbone's best items of a batch and their scores, for re-rankers of several depths.

    Every item is scored for itself, so the depths share one pass, over the deepest.

    Parameters
    ----------
    scorer : Scorer
    depth : int
        Candidates per user at most.
    """

    def __init__(self, scorer: Scorer, depth: int) -> None:
        self.scorer, self.depth = scorer, depth
        self._batch: PromptedBatch | None = None

    def __call__(self, batch: PromptedBatch) -> tuple[Tensor, Tensor]:
        """Items (best of the backbone first) and their scores, both ``[batch, depth]``."""
        if batch is not self._batch:
            self._items = best_items(batch.backbone, self.depth)
            scores = self.scorer(batch, self._items)
            if scores.isnan().any():
                raise DPRError(
                    "a re-ranker's scores are NaN (weights of half precision that overflow?): take "
                    "another rerank_model"
                )
            self._scores = scores.to(batch.backbone.device)
            self._batch = batch
        return self._items, self._scores


def best_items(scores: Tensor, k: int) -> Tensor:
    """The k best items of ``[batch, n_items]``, padding aside, best first and equal ones by id: ``[batch, k]``."""
    real = scores[:, 1:]
    k = min(k, real.shape[1])
    # A quarter of the time of sorting them all.
    last = real.topk(k, dim=1).values[:, -1:]
    above, level = real > last, real == last
    free = k - above.sum(dim=1, keepdim=True)
    chosen = above | (level & (level.cumsum(dim=1) <= free))
    items = chosen.nonzero()[:, 1].view(-1, k)
    order = real.gather(1, items).sort(dim=1, descending=True, stable=True).indices
    return items.gather(1, order) + 1


def rerank(batch: PromptedBatch, candidates: Candidates, k: int) -> Tensor:
    """Put the backbone's top k first, by the scorer; the others follow in the backbone's order."""
    items, scores = (part[:, :k] for part in candidates(batch))
    return batch.hide(batch.ranks.scatter(1, items, ABOVE + whole_numbers(scores)))


def rerankers(scorer: Scorer, depths: dict[str, int]) -> dict[str, System]:
    """Systems by name, each re-ordering as many items as `depths` says."""
    candidates = Candidates(scorer, max(depths.values()))
    return {name: partial(rerank, candidates=candidates, k=k) for name, k in depths.items()}


@dataclass(frozen=True)
class CosineScorer:
    """The text encoder as the scorer: the cosine of prompt and item text."""

    similarity: TextSimilarity

    def __call__(self, batch: PromptedBatch, candidates: Tensor) -> Tensor:
        return self.similarity(batch).gather(1, candidates.to(self.similarity.device))
