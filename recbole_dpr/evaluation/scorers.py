"""Hugging Face models that judge a user, a prompt and an item: cross-encoders and language models."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import groupby, takewhile
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from recbole_dpr.errors import DPRError
from recbole_dpr.evaluation.systems import PromptedBatch
from recbole_dpr.text.hub import find_model, load_pretrained

HISTORY = 10  # titles of the history that a model reads, the newest ones
# Of a pair; what is longer loses titles of the history, or the end of the item's text.
MAX_TOKENS = 512
WAY_OUT = (
    "pass rerank_model=<local folder or Hugging Face name> of a cross-encoder (one or two labels) or "
    "a causal language model"
)
QUESTION = """\
A user of a recommender system took these items, oldest first: {history}.
Now the user says: "{prompt}"
Given the history and what the user says, will the user take the candidate next? Answer Yes or No.
Candidate: {item}"""  # last, so that all before it is read once for all of a user's candidates


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
        self.item_text = [t or title for t, title in zip(item_text, titles, strict=True)]
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
    def score(self, users: Sequence[tuple[str, str]], items: Sequence[str]) -> Tensor:
        """Scores ``[n]`` of n pairs; a user is the titles taken ("A; B") and the prompt."""

    def _pieces(
        self, batch: PromptedBatch, candidates: Tensor
    ) -> Iterator[list[tuple[tuple[str, str], str]]]:
        """Pairs of all users in turn, `batch_size` at once: neighbours are about equally long."""
        assert batch.history is not None
        assert batch.prompt_ids is not None
        piece = []
        rows = zip(
            batch.history.tolist(), batch.prompt_ids.tolist(), candidates.tolist(), strict=True
        )
        for history, prompt_id, items in rows:
            taken = "; ".join(self.titles[item] for item in [i for i in history if i][-HISTORY:])
            for item in items:
                piece.append(((taken, self.prompts[prompt_id]), self.item_text[item]))
                if len(piece) == self.batch_size:
                    yield piece
                    piece = []
        if piece:
            yield piece


class CrossEncoder(PairScorer):
    """The logit of a sequence classifier for (prompt and history, item text).

    With one label its logit, with two the second's minus the first's (the log-odds of "relevant").
    """

    auto_class = "AutoModelForSequenceClassification"
    side = "right"  # positions count from the left, and the prompt stands in front

    def score(self, users: Sequence[tuple[str, str]], items: Sequence[str]) -> Tensor:
        tokenizer, model = self.loaded
        queries = [f"{prompt} (Taken before: {taken})" for taken, prompt in users]
        tokens = tokenizer(
            queries,
            list(items),
            padding=True,
            truncation="longest_first",
            max_length=self.max_tokens,
            return_tensors="pt",
        ).to(self.device)
        logits = model(**tokens).logits
        return logits[:, -1] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]


class YesNo(PairScorer):
    """How much likelier a causal language model finds "Yes" than "No" after a written question.

    Pointwise, with the history named as in LLMRank (arXiv 2305.08845); the likelihood of an answer as
    relevance is that of HELM (arXiv 2211.09110). Models with a chat template are asked in it.
    """

    auto_class = "AutoModelForCausalLM"
    side = "left"  # the answer comes last

    def written(self, taken: str, prompt: str, item: str, answer: str) -> str:
        """The question with its answer, as the model's training would have it."""
        tokenizer, _ = self.loaded
        question = QUESTION.format(history=taken, prompt=prompt, item=item)
        if not tokenizer.chat_template:
            return f"{question}\nAnswer: {answer}"
        turn = [{"role": "user", "content": question}]
        asked = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
        return asked + answer

    @cached_property
    def answers(self) -> tuple[int, int, int]:
        """The tokens in which "Yes" and "No" first differ, and how many tokens stand from there on.

        Whether the blank before it belongs to the answer is the tokenizer's business.

        Raises
        ------
        DPRError
            If the tokenizer does not tell the two apart.
        """
        yes, no = (self._tokens([self.written("", "", "", word)])[0] for word in ("Yes", "No"))
        for place, (y, n) in enumerate(zip(yes, no, strict=False)):
            if y != n:
                return y, n, len(yes) - place
        raise DPRError(f"the tokenizer of rerank_model '{self.folder}' reads Yes as it reads No")

    def score(self, users: Sequence[tuple[str, str]], items: Sequence[str]) -> Tensor:
        _, model = self.loaded
        yes, no, tail = self.answers
        texts = [self.written(*user, item, "Yes") for user, item in zip(users, items, strict=True)]
        asked = zip(users, (ids[:-tail] for ids in self._tokens(texts)), strict=True)
        by_user = groupby(asked, key=itemgetter(0))
        states = torch.cat([self._after([ids for _, ids in group]) for _, group in by_user])
        # Of a whole vocabulary two logits count; in half precision they would come out in steps of an eighth.
        head = model.get_output_embeddings()
        bias = None if head.bias is None else head.bias[[yes, no]].float()
        logits = linear(states.float(), head.weight[[yes, no]].float(), bias)
        return logits[:, 0] - logits[:, 1]

    def _after(self, asked: list[list[int]]) -> Tensor:
        """The model's last state after each of some questions, ``[n, D]``; what all begin with is read once."""
        model = self.loaded[1].base_model
        columns = zip(*(ids[:-1] for ids in asked), strict=False)  # something is left to each
        start = [column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns)]
        cache = None
        if start:
            read = model(torch.tensor([start], device=self.device), use_cache=True)
            cache = read.past_key_values
            cache.batch_repeat_interleave(len(asked))
        rests = [torch.tensor(ids[len(start) :]) for ids in asked]
        # Padding stands behind the questions, where no token that counts looks.
        rest = pad_sequence(rests, batch_first=True).to(self.device)
        last = torch.tensor([len(ids) - 1 for ids in rests], device=self.device)
        states = model(rest, past_key_values=cache).last_hidden_state
        return states[torch.arange(len(last), device=self.device), last]

    def _tokens(self, texts: list[str]) -> list[list[int]]:
        tokenizer, _ = self.loaded
        # A chat template writes the special tokens itself. One place is left for the answer.
        return tokenizer(
            texts,
            add_special_tokens=not tokenizer.chat_template,
            truncation=True,
            max_length=self.max_tokens - 1,
        )["input_ids"]


def find_scorer(name: str) -> tuple[Path, type[PairScorer]]:
    """Return a model's folder and the scorer that it can be, by what its config says; loads nothing.

    Raises
    ------
    DPRError
        If there is no such model, or it is neither a causal language model nor a classifier with one
        or two labels.
    """
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    )

    folder = find_model(name, "rerank_model", WAY_OUT)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    kinds = config.get("architectures") or []
    if any(kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values() for kind in kinds):
        return folder, YesNo
    # Labels are written only where there are not two.
    labels = len(config.get("id2label") or "01")
    if (
        any(kind in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES.values() for kind in kinds)
        and labels <= 2
    ):
        return folder, CrossEncoder
    raise DPRError(
        f"rerank_model '{name}' is {' or '.join(kinds) or 'of no known kind'} with {labels} labels: "
        f"{WAY_OUT}"
    )
