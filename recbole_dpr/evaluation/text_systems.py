"""Systems made of texts alone: the cosine of the encoded prompt and the encoded item texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from recbole_dpr.data.draws import KINDS
from recbole_dpr.evaluation.batches import prompted_batches
from recbole_dpr.evaluation.systems import PromptedBatch
from recbole_dpr.metrics import average_rank, ndcg_gain
from recbole_dpr.options import reported_k
from recbole_dpr.text.encoder import item_vectors

if TYPE_CHECKING:
    from recbole_dpr.data.dataset import PromptDataset
    from recbole_dpr.data.prompts import PromptTable
    from recbole_dpr.data.tasks import PromptedTask
    from recbole_dpr.text import TextEncoder

# Weights that are tried on the validation split. The first of equally good ones is taken.
SIZES = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0)
WEIGHTS = (0.0, *SIZES, *(-size for size in SIZES))


class TextSimilarity:
    """Cosine between each prompt of a batch and every item's text.

    Texts are encoded when the first batch asks; the cosines of a batch are shared by the systems that ask for them.

    Parameters
    ----------
    encoder : TextEncoder
    item_text : sequence of str ``[n_items]``
        An item without text has the cosine 0 with everything.
    prompts : sequence of str
        Texts by prompt id.
    device : str or torch.device
    """

    def __init__(
        self,
        encoder: TextEncoder,
        item_text: Sequence[str],
        prompts: Sequence[str],
        device: str | torch.device = "cpu",
    ) -> None:
        self.encoder, self.device = encoder, device
        self._item_text, self._prompt_text = list(item_text), list(prompts)
        self._batch: PromptedBatch | None = None

    @cached_property
    def items(self) -> Tensor:
        """Item vectors of length 1 (0 without a text), ``[n_items, D]``."""
        return item_vectors(self.encoder, self._item_text).to(self.device)

    @cached_property
    def prompts(self) -> Tensor:
        """Prompt vectors of length 1, ``[n_prompts, D]``."""
        return self.encoder.vectors(self._prompt_text).to(self.device)

    def __call__(self, batch: PromptedBatch) -> Tensor:
        """Cosines ``[batch, n_items]``, the padding item's among them."""
        if batch is not self._batch:
            assert batch.prompt_ids is not None
            self._cosines = self.prompts[batch.prompt_ids.to(self.device)] @ self.items.T
            self._batch = batch
        return self._cosines


@dataclass(frozen=True)
class Semantic:
    """An embedding model as the recommender: the user is the prompt, whatever the history."""

    similarity: TextSimilarity

    def __call__(self, batch: PromptedBatch) -> Tensor:
        return batch.hide(self.similarity(batch))


@dataclass(frozen=True)
class Additive:
    """Backbone score + weight x cosine (the idea of CTRL-Rec, arXiv 2510.12742).

    Parameters
    ----------
    similarity : TextSimilarity
    weights : mapping of "positive", "negative", "compound" to a number
        One for each kind of prompt, from `tuned_weights`; a prompt that asks for nothing adds
        nothing. That is generous: the system is told whether a prompt wants or rejects, without which
        "no horror" would bring horror up.
    """

    similarity: TextSimilarity
    weights: Mapping[str, float]

    def __call__(self, batch: PromptedBatch) -> Tensor:
        by_kind = torch.tensor([0.0, *(self.weights[kind] for kind in KINDS)])
        weight = by_kind[batch.include.any(dim=1).long() + 2 * batch.exclude.any(dim=1).long()]
        weight = weight.to(batch.backbone.device)[:, None]
        return batch.hide(standardised(batch) + weight * self.similarity(batch))


def standardised(batch: PromptedBatch) -> Tensor:
    """The backbone's logits with mean 0 and standard deviation 1 over what can be recommended, double ``[batch, n_items]``.

    Backbones differ in scale by orders of magnitude (dot products, probabilities, distances), and users of
    one backbone by how long their vectors are, where one weight of the cosine and one grid of weights must
    serve all. The cosine has the same scale everywhere.
    """
    own = batch.logits.double()
    ranks = own > -torch.inf
    own = own.masked_fill(~ranks, 0)
    n = ranks.sum(dim=1, keepdim=True)
    apart = (own - own.sum(dim=1, keepdim=True) / n).masked_fill(~ranks, 0)
    spread = (apart.square().sum(dim=1, keepdim=True) / (n - 1).clamp(min=1)).sqrt()
    return apart / spread.clamp(min=torch.finfo(torch.float32).tiny)


@torch.no_grad()
def tuned_weights(
    model: Any,
    similarity: TextSimilarity,
    tasks: Sequence[PromptedTask],
    config: Any,
    dataset: PromptDataset,
    prompts: PromptTable,
) -> dict[str, float]:
    """Return the weight of `WEIGHTS` with the best NDCG for each kind of prompt.

    Parameters
    ----------
    tasks, dataset, prompts
        Of the validation split, as `evaluate_tasks` takes them. A kind that none of the tasks is of
        has weight 0.
    """
    model.eval()
    k, best = reported_k(config["topk"]), dict.fromkeys(KINDS, 0.0)
    for task in tasks:
        if not len(task.rows):
            continue
        gain = torch.zeros(len(WEIGHTS), dtype=torch.double)
        for batch, _, items in prompted_batches(model, task, config, dataset, prompts):
            own, cosine = standardised(batch), similarity(batch)
            items = items.to(own.device)
            for i, weight in enumerate(WEIGHTS):
                rank = average_rank(batch.hide(own + weight * cosine), items)
                gain[i] += ndcg_gain(rank, k).sum().cpu()
        best[task.name] = WEIGHTS[int(gain.argmax())]
    return best
