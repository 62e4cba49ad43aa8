"""What all models have in common that judge a user, a prompt and an item."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from recbole_dpr.evaluation.systems import PromptedBatch
from recbole_dpr.text.hub import load_pretrained

HISTORY = 10  # titles of the history that a model reads, the newest ones
ITEM_WORDS = 100  # of an item's text that it reads: a long one should not push out the prompt
MAX_TOKENS = 512  # of a pair; what is longer loses the oldest titles of the history
WAY_OUT = (
    "pass rerank_model=<local folder or Hugging Face name> of a cross-encoder (one or two labels) or "
    "a causal language model"
)

User = tuple[tuple[str, ...], str]  # titles taken, oldest first, and the prompt


class PairScorer(ABC):
    """Scores user and item pairs with a model, a piece of the batch at a time.

    The weights are loaded when the first batch asks.

    Parameters
    ----------
    folder : Path
        Holds config, tokenizer and safetensors weights.
    titles, item_text : sequence of str ``[n_items]``
        An item of the history is named by its title, a candidate by its text.
    prompts : sequence of str
        Texts by prompt id.
    batch_size : int
        Pairs per forward pass.
    device : str or torch.device
    show_progress : bool
    """

    auto_class: str
    side: str  # on which texts are padded and cut

    def __init__(
        self,
        folder: Path,
        titles: Sequence[str],
        item_text: Sequence[str],
        prompts: Sequence[str],
        batch_size: int,
        device: str | torch.device = "cpu",
        show_progress: bool = False,
    ) -> None:
        self.folder, self.batch_size, self.device = folder, batch_size, device
        self.titles, self.prompts = titles, prompts
        texts = (text or title for text, title in zip(item_text, titles, strict=True))
        self.item_text = [" ".join(text.split()[:ITEM_WORDS]) for text in texts]
        self.show_progress = show_progress

    @cached_property
    def loaded(self) -> tuple[Any, Any]:
        """The tokenizer and the model.

        Raises
        ------
        DPRError
            If they cannot be loaded.
        """
        tokenizer, model = load_pretrained(
            self.auto_class,
            self.folder,
            "auto",
            f"rerank_model '{self.folder}'",
            WAY_OUT,
            padding_side=self.side,
            truncation_side=self.side,
        )
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        model.config.pad_token_id = tokenizer.pad_token_id
        return tokenizer, model.requires_grad_(False).eval().to(self.device)

    @property
    def max_tokens(self) -> int:
        """Tokens of a pair at most: `MAX_TOKENS`, or what the model can take."""
        tokenizer, model = self.loaded
        positions = getattr(model.config, "max_position_embeddings", None) or MAX_TOKENS
        return min(MAX_TOKENS, tokenizer.model_max_length, positions)

    @torch.inference_mode()
    def __call__(self, batch: PromptedBatch, candidates: Tensor) -> Tensor:
        """Scores ``[batch, k]`` of the candidates ``[batch, k]``, float32 on the CPU."""
        pieces = tqdm(
            list(self._pieces(batch, candidates)),
            desc=f"Read by {self.folder.name}",
            leave=False,
            disable=not self.show_progress,
        )
        scores = torch.cat(
            [self.score(*zip(*pairs, strict=True)).float().cpu() for pairs in pieces]
        )
        return scores.view(candidates.shape)

    @abstractmethod
    def score(self, users: Sequence[User], items: Sequence[str]) -> Tensor:
        """Scores ``[n]`` of n pairs."""

    def _pieces(self, batch: PromptedBatch, candidates: Tensor) -> Iterator[list[tuple[User, str]]]:
        """Pairs of all users in turn, `batch_size` at once: neighbours are about equally long."""
        assert batch.history is not None
        assert batch.prompt_ids is not None
        piece = []
        rows = zip(
            batch.history.tolist(), batch.prompt_ids.tolist(), candidates.tolist(), strict=True
        )
        for history, prompt_id, items in rows:
            taken = tuple(self.titles[item] for item in [i for i in history if i][-HISTORY:])
            for item in items:
                piece.append(((taken, self.prompts[prompt_id]), self.item_text[item]))
                if len(piece) == self.batch_size:
                    yield piece
                    piece = []
        if piece:
            yield piece
