"""Recommender: a trained run, ready to answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import SequentialRecommender

from recbole_dpr.config import DPRConfig
from recbole_dpr.data.catalogue import CATALOGUE_FILE, Catalogue
from recbole_dpr.errors import DPRError, did_you_mean
from recbole_dpr.model.build import build_dpr, build_plain, make_encoder
from recbole_dpr.training.checkpoint import MODEL_FILE, load_tensors, load_weights


class Recommender:
    """Recommends for any history of known items, with or without a prompt.

    Parameters
    ----------
    config : DPRConfig
    catalogue : Catalogue
    model : DPR or SequentialRecommender
        In evaluation mode.
    """

    def __init__(
        self, config: DPRConfig, catalogue: Catalogue, model: SequentialRecommender
    ) -> None:
        self.config, self.catalogue, self.model = config, catalogue, model
        self._ids = {token: i for i, token in enumerate(catalogue.tokens) if i}
        self._length = config["MAX_ITEM_LIST_LENGTH"]

    @classmethod
    def load(cls, run_dir: str | Path, model: type | None = None) -> Recommender:
        """Load a run from its folder alone; neither the data set nor a pickle is needed.

        Parameters
        ----------
        model : type, optional
            The class, if the run's model was one of your own.

        Raises
        ------
        DPRError
            If the folder is no finished run, or damaged.
        """
        run_dir = Path(run_dir)
        config = DPRConfig.from_run(run_dir, model)
        weights, _ = load_tensors(run_dir / MODEL_FILE)
        catalogue = Catalogue.load(run_dir / CATALOGUE_FILE)
        built: SequentialRecommender
        if config["promptable"]:
            encoder = make_encoder(config, cached=False)
            built = build_dpr(config, catalogue, catalogue.readable, None, encoder)
        else:
            built = build_plain(config, catalogue)
        load_weights(built, weights, run_dir / MODEL_FILE)
        return cls(config, catalogue, built.eval())

    @torch.inference_mode()
    def recommend(
        self,
        histories: Sequence[Sequence[str]],
        prompts: Sequence[str | None],
        k: int = 10,
    ) -> list[list[tuple[str, float]]]:
        """The k best items for each history under its prompt.

        Parameters
        ----------
        histories : sequence of sequences of str
            Item tokens as they stand in the data, oldest first; only the last ``MAX_ITEM_LIST_LENGTH``
            count. The user need not have been in the training data.
        prompts : sequence of str or None
            One for each history; None, "" or blank is no prompt.
        k : int

        Returns
        -------
        list of list of (str, float)
            Item token and score, best first.

        Raises
        ------
        DPRError
            For an unknown item, an empty history, a prompt that is no text, numbers that do not
            match, or a prompt to a model that takes none.
        """
        if len(histories) != len(prompts):
            raise DPRError(f"{len(histories)} histories came with {len(prompts)} prompts")
        n_items = len(self.catalogue) - 1
        if not isinstance(k, int) or not 1 <= k <= n_items:
            raise DPRError(f"k must be a whole number from 1 to {n_items}, not {k!r}")
        if not histories:
            return []
        texts = [self._text(i, prompt) for i, prompt in enumerate(prompts)]
        scores = self._scores(self._interaction(histories), texts)
        best = scores[:, 1:].topk(k, dim=1)
        return [
            [(self.catalogue.tokens[i + 1], s) for i, s in zip(items, values, strict=True)]
            for items, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]

    def _scores(self, interaction: Interaction, texts: list[str]) -> torch.Tensor:
        if not self.config["promptable"]:
            if any(texts):
                raise DPRError(
                    f"{self.config['model']} takes no prompts: train DPR-{self.config['model']}"
                )
            return self.model.full_sort_predict(interaction)
        unique = list(dict.fromkeys(texts))
        include, exclude = self.model.read(unique)
        rows = torch.tensor([unique.index(text) for text in texts], device=include.device)
        return self.model.steered_scores(interaction, include[rows], exclude[rows])

    def _interaction(self, histories: Sequence[Sequence[str]]) -> Interaction:
        lists = torch.zeros(len(histories), self._length, dtype=torch.long)
        lengths = []
        for row, history in enumerate(histories):
            if isinstance(history, str) or not len(history):
                raise DPRError(f"history {row} must be a list of at least one item token")
            known = [self._item(row, token) for token in history][-self._length :]
            lists[row, : len(known)] = torch.tensor(known)
            lengths.append(len(known))
        fields = {self.model.ITEM_SEQ: lists, self.model.ITEM_SEQ_LEN: torch.tensor(lengths)}
        return Interaction(fields).to(self.config["device"])

    def _item(self, row: int, token: str) -> int:
        item = self._ids.get(str(token))
        if item is None:
            raise DPRError(
                f"history {row} holds {token!r}, which is no item of {self.config['dataset']}"
                f"{did_you_mean(str(token), self._ids)}"
            )
        return item

    @staticmethod
    def _text(row: int, prompt: str | None) -> str:
        if prompt is not None and not isinstance(prompt, str):
            raise DPRError(f"prompt {row} must be a text or None, not {type(prompt).__name__}")
        return (prompt or "").strip()
