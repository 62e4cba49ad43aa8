"""Recommender: a trained run, ready to answer."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recbole.model.abstract_recommender import SequentialRecommender

from recbole_dpr.data.catalogue import USERS_FILE, Catalogue, load_users
from recbole_dpr.errors import DPRError
from recbole_dpr.model.dpr import DPR
from recbole_dpr.run_folder import load_model
from recbole_dpr.serving.histories import Histories, len_of, texts_in
from recbole_dpr.serving.index import FaissIndex
from recbole_dpr.serving.ranking import Asked, Index, Intents, Ranker
from recbole_dpr.serving.reading import Prompt, PromptMemory, texts_of

STRONGEST = 10.0  # ten times as far as trained; beyond, only the prompt counts

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """What one request gets: the best items with their scores, and what was left out.

    Parameters
    ----------
    items : list of (str, float)
        Item token and score, best first.
    skipped : int
        Items of the history that are not in the catalogue.
    """

    items: list[tuple[str, float]]
    skipped: int


class Recommender:
    """Recommends for any history of known items, with or without a prompt. Thread-safe.

    Parameters
    ----------
    config : DPRConfig or RunOptions
    catalogue : Catalogue
    model : DPR or SequentialRecommender
        In evaluation mode.
    index : Index, optional
        Finds the best items in place of the full ranking (see `serving.index`).

    Attributes
    ----------
    titles : dict of str to str
        By item token.
    users : list of (str, list of str)
        A few users of the training data and their histories, where the run folder has them.
    """

    def __init__(
        self,
        config: Any,
        catalogue: Catalogue,
        model: SequentialRecommender,
        index: Index | None = None,
    ) -> None:
        self.config, self.catalogue, self.model = config, catalogue, model
        self.titles = dict(zip(catalogue.tokens[1:], catalogue.titles[1:], strict=True))
        self.users: list[tuple[str, list[str]]] = []
        self._histories = Histories(catalogue, config, model)
        self._ranker = Ranker(catalogue, model, self._histories, index)
        if index is not None and not index.fits(self._ranker.item_vectors().cpu().numpy()):
            raise DPRError("the index is of another run: export it again")
        self._memory = PromptMemory(model, catalogue.readable) if isinstance(model, DPR) else None

    @classmethod
    def load(
        cls,
        run_dir: str | Path,
        model: type | None = None,
        device: str | torch.device | None = None,
        index: Index | str | Path | None = None,
        reader: str | Path | Sequence[str] | None = None,
    ) -> Recommender:
        """Load a run from its folder alone; neither the data set nor a pickle is needed.

        Parameters
        ----------
        model : type, optional
            The class, if the run's model was one of your own.
        device : str or torch.device, optional
            Without it: the GPU if there is one and the run's ``use_gpu`` says so.
        index : Index or path, optional
            Of the items; a path is that of an exported faiss index.
        reader : str, path or list of str, optional
            Reads the prompts in place of the run's own: "shipped", "large", or a file of
            benchmarks/train_reader.py; several decide together.

        Raises
        ------
        DPRError
            If the folder is no finished run, damaged, changed since it was written, or made by a
            newer version; or there is no such reader.
        """
        if isinstance(index, (str, Path)):
            index = FaissIndex.load(index)
        reading = {} if reader is None else {"reader": reader}
        recommender = cls(*load_model(run_dir, model, device, reading), index)
        recommender.users = load_users(Path(run_dir) / USERS_FILE)
        return recommender

    def recommend(
        self,
        histories: Sequence[Sequence[str]],
        prompts: Sequence[Prompt],
        k: int = 10,
        strength: float = 1.0,
        exclude_history: bool | None = None,
        include: Sequence[str] | None = None,
        exclude: Sequence[str] | None = None,
        strict: bool = False,
    ) -> list[list[tuple[str, float]]]:
        """The k best items for each history under its prompt.

        Parameters
        ----------
        histories : sequence of sequences of str
            Item tokens as they stand in the data, oldest first; the last ``MAX_ITEM_LIST_LENGTH`` known ones
            make the user, all are left out where the history is. The user need not have been in the training data.
        prompts : sequence
            One for each history: a text, None, or the turns of a conversation, whose later ones
            overrule the earlier. None, "" or blank is no prompt.
        k : int
        strength : float
            How far a prompt moves the user: 0 not at all (the backbone's scores, bit for bit; from an index up to rounding), 1 as
            trained, above harder; at most 10.
        exclude_history : bool, optional
            Leave out what is in the history; there may then be fewer than k answers. None: as the run
            did when it was trained and evaluated (`excludes_history`).
        include, exclude : sequence of str, optional
            Attribute values that every request wants or rejects beside what its prompt says.
        strict : bool
            An unknown item in a history is an error; otherwise it is skipped, and logged with a count.

        Returns
        -------
        list of list of (str, float)
            Item token and score, best first.

        Raises
        ------
        DPRError
            For an empty history or one without a known item, a prompt that is no text, numbers that
            do not match, or a prompt to a model that takes none.
        """
        answers = self.answer(
            histories, prompts, k, strength, exclude_history, include, exclude, strict
        )
        skipped = sum(answer.skipped for answer in answers)
        if skipped:
            logger.warning(f"{skipped} items of the histories are not in the catalogue: skipped")
        return [answer.items for answer in answers]

    def answer(
        self,
        histories: Sequence[Sequence[str]],
        prompts: Sequence[Prompt],
        k: int = 10,
        strength: float = 1.0,
        exclude_history: bool | None = None,
        include: Sequence[str] | None = None,
        exclude: Sequence[str] | None = None,
        strict: bool = False,
    ) -> list[Answer]:
        """`recommend`, which also tells how many items of each history were skipped."""
        k = self._check_k(k)
        asked, skipped = self._asked(
            histories, prompts, strength, exclude_history, include, exclude, strict
        )
        found = self._ranker.best(asked, k)
        return [Answer(items, n) for items, n in zip(found, skipped, strict=True)]

    def user_vectors(
        self,
        histories: Sequence[Sequence[str]],
        prompts: Sequence[Prompt],
        strength: float = 1.0,
        include: Sequence[str] | None = None,
        exclude: Sequence[str] | None = None,
        strict: bool = False,
    ) -> np.ndarray:
        """The users' vectors, ``[B, d + s]``, whose product with `item_vectors` ranks the items.

        The parameters are those of `recommend`. A plain model's vectors have length d.

        Raises
        ------
        DPRError
            As `recommend`, and if a plain model ranks by no dot product.
        """
        asked, _ = self._asked(
            histories, prompts, strength, include=include, exclude=exclude, strict=strict
        )
        return self._ranker.user_vectors(asked)

    def item_vectors(self) -> np.ndarray:
        """The items' vectors, ``[n_items, d + s]``; row i is ``catalogue.tokens[i]``, row 0 is padding."""
        # A copy: who scales what they get must not change what is recommended.
        return self._ranker.item_vectors().cpu().numpy().copy()

    @property
    def takes_prompts(self) -> bool:
        """Whether the model is a DPR, rather than a plain RecBole model."""
        return self._memory is not None

    @property
    def excludes_history(self) -> bool:
        """Whether what stands in a history is left out where a request does not say: as in training."""
        return isinstance(self.model, DPR) and self.model.exclude_history

    @torch.inference_mode()
    def read(
        self,
        prompt: Prompt,
        include: Sequence[str] | None = None,
        exclude: Sequence[str] | None = None,
    ) -> dict[str, Any]:
        """How a prompt is understood.

        Returns
        -------
        dict
            ``include`` and ``exclude``: attribute values; ``router``: weights of the experts, empty
            where nothing is asked.
        """
        intents = self._intents([prompt], include, exclude)
        values = self.catalogue.attributes.values
        sides = [[values[i] for i in side[0].nonzero()[:, 0].tolist()] for side in intents]
        router = self.model.router_weights(*intents)[0].tolist() if any(sides) else []
        return {"include": sides[0], "exclude": sides[1], "router": router}

    def explain(
        self,
        history: Sequence[str],
        prompt: Prompt,
        k: int = 10,
        strength: float = 1.0,
        exclude_history: bool | None = None,
        include: Sequence[str] | None = None,
        exclude: Sequence[str] | None = None,
        strict: bool = False,
        items: Sequence[str] | None = None,
    ) -> list[dict[str, Any]]:
        """Why the k best items stand where they stand; the parameters are those of `recommend`.

        Parameters
        ----------
        items : sequence of str, optional
            Explain these rather than the k best.

        Returns
        -------
        list of dict
            ``item``, ``title``, ``values``; ``score`` = ``base`` (the backbone's) + ``shift`` (what
            the moved state adds) + ``semantic`` (what the prompt's direction adds); ``rank`` and
            ``rank_before`` (with and without the prompt, 1 is best, the history left out where it
            is excluded).

        Raises
        ------
        DPRError
            As `recommend`.
        """
        asked, _ = self._asked(
            [history], [prompt], strength, exclude_history, include, exclude, strict
        )
        if items is None:
            items = [token for token, _ in self._ranker.best(asked, self._check_k(k))[0]]
        tokens = texts_in(items, "items", "item tokens")
        before, shift, semantic = (x[0] for x in self._ranker.summands(asked))
        after = before + shift + semantic
        ranked = torch.ones(len(before), dtype=torch.bool, device=before.device)
        ranked[0] = False
        if asked.exclude_history:
            ranked[asked.ids[0]] = False
        return [
            {
                "item": token,
                **self.describe(item),
                "score": float(after[item]),
                "base": float(before[item]),
                "shift": float(shift[item]),
                "semantic": float(semantic[item]),
                "rank": 1 + int((after[ranked] > after[item]).sum()),
                "rank_before": 1 + int((before[ranked] > before[item]).sum()),
            }
            for token, item in ((token, self._histories.item("items", token)) for token in tokens)
        ]

    def describe(self, item: int) -> dict[str, Any]:
        """Title and attribute values of an item by its row in the catalogue."""
        attributes = self.catalogue.attributes
        values = [attributes.values[i] for i in attributes.matrix[item].nonzero()[:, 0].tolist()]
        return {"title": self.catalogue.titles[item], "values": values}

    # From requests to what the ranker takes

    def _check_k(self, k: int) -> int:
        n_items = len(self.catalogue) - 1
        if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or not 1 <= k <= n_items:
            raise DPRError(f"k must be a whole number from 1 to {n_items}, not {k!r}")
        return int(k)

    def _asked(
        self,
        histories: Sequence[Sequence[str]],
        prompts: Sequence[Prompt],
        strength: float,
        exclude_history: bool | None = None,
        include: Sequence[str] | None = None,
        exclude: Sequence[str] | None = None,
        strict: bool = False,
    ) -> tuple[Asked, list[int]]:
        """The requests, and how many items of each history are unknown."""
        strength = check_strength(strength)
        if exclude_history is None:
            exclude_history = self.excludes_history
        elif not isinstance(exclude_history, bool):
            raise DPRError(f"exclude_history takes True, False or None, not {exclude_history!r}")
        ids, skipped = self._histories.known(histories, len_of(prompts), strict)
        intents = self._intents(prompts, include, exclude)
        return Asked(ids, intents, strength, exclude_history), skipped

    def _intents(
        self,
        prompts: Sequence[Prompt],
        include: Sequence[str] | None,
        exclude: Sequence[str] | None,
    ) -> Intents:
        if self._memory is not None:
            return self._memory.intents(prompts, include, exclude)
        said = [text for row, prompt in enumerate(prompts) for text in texts_of(row, prompt)]
        wished = any(side is not None and len_of(side, "values") for side in (include, exclude))
        if said or wished:
            name = self.config["model"]
            raise DPRError(f"{name} takes no prompts: train DPR-{name}")
        nothing = torch.zeros(len(prompts), 0, dtype=torch.bool)
        return nothing, nothing


def check_strength(strength: float) -> float:
    """A strength as a float.

    Raises
    ------
    DPRError
        If it is no number from 0 to `STRONGEST`.
    """
    number = isinstance(strength, (int, float, np.number)) and not isinstance(strength, bool)
    if not number or not 0 <= strength <= STRONGEST:  # NaN is neither
        raise DPRError(f"strength must be a number from 0 to {STRONGEST:g}, not {strength!r}")
    return float(strength)


def load(
    run_dir: str | Path,
    model: type | None = None,
    device: str | torch.device | None = None,
    index: Index | str | Path | None = None,
    reader: str | Path | Sequence[str] | None = None,
) -> Recommender:
    """Load a finished run: `Recommender.load`."""
    return Recommender.load(run_dir, model, device, index, reader)
