"""Hugging Face models that judge a user, a prompt and an item: cross-encoders and language models."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import groupby, takewhile
from logging import getLogger
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
ITEM_WORDS = 100  # of an item's text that it reads: a long one should not push out the prompt
MAX_TOKENS = 512  # of a pair; what is longer loses the oldest titles of the history
WAY_OUT = (
    "pass rerank_model=<local folder or Hugging Face name> of a cross-encoder (one or two labels) or "
    "a causal language model"
)
QUESTION = """\
A user of a recommender system took these items, oldest first: {history}.
Now the user says: "{prompt}"
Given the history and what the user says, will the user take the candidate next? Answer Yes or No.
Candidate: {item}"""  # last, so that all before it is read once for all of a user's candidates

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


class CrossEncoder(PairScorer):
    """The logit of a sequence classifier for (prompt and history, item text).

    With one label its logit, with two the second's minus the first's (the log-odds of "relevant").
    """

    auto_class = "AutoModelForSequenceClassification"
    side = "right"  # positions count from the left, and the prompt stands in front

    def score(self, users: Sequence[User], items: Sequence[str]) -> Tensor:
        tokenizer, model = self.loaded
        # What is too long loses its end, so the newest titles come first.
        queries = [f"{prompt} (Taken before: {'; '.join(taken[::-1])})" for taken, prompt in users]
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

    def written(self, user: User, item: str, answer: str) -> str:
        """The question with its answer, as the model's training would have it."""
        tokenizer, _ = self.loaded
        taken, prompt = user
        question = QUESTION.format(history="; ".join(taken), prompt=prompt, item=item)
        if not tokenizer.chat_template:
            return f"{question}\nAnswer: {answer}"
        turn = [{"role": "user", "content": question}]
        asked = tokenizer.apply_chat_template(
            turn, tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        return asked + answer

    @cached_property
    def answers(self) -> tuple[list[int], int]:
        """The tokens in which "Yes" and "No" first differ, and how many tokens stand from there on.

        Whether the blank before it belongs to the answer is the tokenizer's business.

        Raises
        ------
        DPRError
            If the tokenizer does not tell the two apart.
        """
        yes, no = self._tokens([self.written(((), ""), "", word) for word in ("Yes", "No")])
        for place, (y, n) in enumerate(zip(yes, no, strict=False)):
            if y != n:
                return [y, n], len(yes) - place
        raise DPRError(f"the tokenizer of rerank_model '{self.folder}' reads Yes as it reads No")

    def score(self, users: Sequence[User], items: Sequence[str]) -> Tensor:
        asked = self._questions(users, items)
        if not self.reads_once:
            return self._whole(asked)
        by_user = groupby(zip(users, asked, strict=True), key=itemgetter(0))
        return torch.cat([self._once([ids for _, ids in group]) for _, group in by_user])

    @cached_property
    def reads_once(self) -> bool:
        """Whether `_once` gives what the model itself says.

        It does not where more than keys and values goes from token to token (Mamba), or more than one
        matrix lies between the last state and the answer (BERT).
        """
        asked = self._questions([((), "a")] * 3, ["a", "one that is longer", "another"])
        expected = self._whole(asked)
        try:
            found = self._once(asked)
        except Exception:  # every kind of model fails in its own way
            found = torch.full_like(expected, torch.nan)
        # In half precision logits come in steps of an eighth.
        same = (found - expected).abs().max() < 0.25 + 0.05 * expected.abs().max()
        if not same:
            getLogger().info(
                f"rerank_model {self.folder.name} reads each question from its beginning: it does not "
                "go on from kept keys and values as others do"
            )
        return bool(same)

    def _whole(self, asked: list[list[int]]) -> Tensor:
        """Log-odds ``[n]`` of the answers to questions, each read from its beginning."""
        tokenizer, model = self.loaded
        tokens = tokenizer.pad({"input_ids": asked}, return_tensors="pt").to(self.device)
        # One step of `generate` sees to positions behind the padding, for every kind of model.
        step = model.generate(
            **tokens,
            max_new_tokens=1,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
            pad_token_id=tokenizer.pad_token_id,
        )
        logits = step.logits[0][:, self.answers[0]].float()
        return logits[:, 0] - logits[:, 1]

    def _once(self, asked: list[list[int]]) -> Tensor:
        """The same, what all questions begin with read once."""
        _, model = self.loaded
        columns = zip(*(ids[:-1] for ids in asked), strict=False)  # something is left to each
        start = [column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns)]
        cache = None
        if start:
            read = model.base_model(torch.tensor([start], device=self.device), use_cache=True)
            cache = read.past_key_values
            cache.batch_repeat_interleave(len(asked))
        rests = [torch.tensor(ids[len(start) :]) for ids in asked]
        # Padding stands behind the questions, where no token that counts looks.
        rest = pad_sequence(rests, batch_first=True).to(self.device)
        last = torch.tensor([len(ids) - 1 for ids in rests], device=self.device)
        states = model.base_model(rest, past_key_values=cache).last_hidden_state
        states = states[torch.arange(len(last), device=self.device), last].float()
        # Two logits of the whole vocabulary count; in half precision many candidates would tie.
        head, answers = model.get_output_embeddings(), self.answers[0]
        bias = None if head.bias is None else head.bias[answers].float()
        logits = linear(states, head.weight[answers].float(), bias)
        if cap := getattr(model.config.get_text_config(), "final_logit_softcapping", None):
            logits = cap * (logits / cap).tanh()
        return logits[:, 0] - logits[:, 1]

    def _questions(self, users: Sequence[User], items: Sequence[str]) -> list[list[int]]:
        """The tokens of questions, up to where the answer comes; too long ones lose their oldest titles."""
        tail = self.answers[1]
        pairs = list(zip(users, items, strict=True))
        asked = self._tokens([self.written(user, item, "Yes") for user, item in pairs])
        for place, ((taken, prompt), item) in enumerate(pairs):
            while taken and len(asked[place]) >= self.max_tokens:  # a place is left for the answer
                taken = taken[1:]
                asked[place] = self._tokens([self.written((taken, prompt), item, "Yes")])[0]
        return [ids[:-tail][-self.max_tokens + 1 :] for ids in asked]

    def _tokens(self, texts: list[str]) -> list[list[int]]:
        tokenizer, _ = self.loaded
        # A chat template writes the special tokens itself.
        special = not tokenizer.chat_template
        return tokenizer(texts, add_special_tokens=special, verbose=False)["input_ids"]


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
