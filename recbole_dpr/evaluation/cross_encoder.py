"""A cross-encoder that judges a user, a prompt and an item."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from recbole_dpr.evaluation.pair_scorer import PairScorer, User


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
