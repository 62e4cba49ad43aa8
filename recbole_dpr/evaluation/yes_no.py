"""A causal language model that is asked whether a user, with a prompt, will take an item."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import groupby, takewhile
from logging import getLogger
from operator import itemgetter

import torch
from torch import Tensor
from torch.nn.functional import linear
from torch.nn.utils.rnn import pad_sequence

from recbole_dpr.errors import DPRError
from recbole_dpr.evaluation.pair_scorer import PairScorer, User

QUESTION = """\
A user of a recommender system took these items, oldest first: {history}.
Now the user says: "{prompt}"
Given the history and what the user says, will the user take the candidate next? Answer Yes or No.
Candidate: {item}"""  # last, so that all before it is read once for all of a user's candidates


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
