"""PromptDataset: RecBole's SequentialDataset with lazy histories, attributes, texts and prompts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from recbole.data.interaction import Interaction
from recbole.utils import FeatureSource, FeatureType
from torch import Tensor

from recbole_dpr.data.attributes import Attributes, attribute_ids
from recbole_dpr.data.checked import CheckedDataset
from recbole_dpr.data.intent import Intent
from recbole_dpr.data.logged import SUFFIX, PromptFile
from recbole_dpr.errors import DPRError, some_of

SEEN_LIST = "seen_list"  # all items of a history, where its list has the last ones alone
ROW_FIELD = "history_row"  # where a target stands in the flat histories
LOGGED_FIELD = "logged_prompt_id"  # with which logged prompt an interaction came about


class PromptDataset(CheckedDataset):
    """RecBole's sequential data set, whose interactions may carry a prompt.

    RecBole 1.2.1 materialises one padded list of length L per interaction (N x L numbers per field:
    gigabytes on ml-1m). Here every user's history is kept once, flat, and the list of an interaction
    is cut when a batch asks for it; what a batch holds is the same.

    Attributes
    ----------
    attributes : Attributes
        What may be prompted for (option ``prompt_fields``).
    item_text : list of str ``[n_items]``
        The columns of option ``item_text_fields``, joined; "" where an item has no text.
    titles : list of str ``[n_items]``
        Option ``title_field``, or the item's token.
    history : dict of str to Tensor ``[n_interactions]``
        Every loaded interaction field, sorted by user and time.
    prompt_field : str
        Option ``PROMPT_ID_FIELD``; 0 in that field is no prompt.
    whole_histories : bool
        Whether interactions also come with all items of their histories (``SEEN_LIST``).
    logged : list of (str, Intent or None)
        Text and intent of every prompt that the data set's own file of prompts holds, in the order of
        the numbers in ``LOGGED_FIELD``, of which 0 is none. Empty where there is no such file.
    """

    def __init__(self, config) -> None:
        self.prompt_field: str = config["PROMPT_ID_FIELD"]
        self.whole_histories = False
        super().__init__(config)

    def _change_feat_format(self) -> None:
        super()._change_feat_format()
        self.attributes = Attributes.from_dataset(self, self.config["prompt_fields"])
        self.item_text = self._item_strings(self.config["item_text_fields"])
        title = self.config["title_field"]
        tokens = [str(token) for token in self.field2id_token[self.iid_field]]
        found = self._item_strings([title]) if title else tokens
        self.titles = [title or token for title, token in zip(found, tokens, strict=True)]
        self.logged = self._logged_prompts()
        without = int((~self.attributes.matrix[1:].any(dim=1)).sum())
        blank = sum(not text for text in self.item_text[1:])
        fields = ", ".join(dict.fromkeys(self.attributes.fields))
        values = self.attributes.values
        self.logger.info(f"Prompts may ask for {len(values)} values of {fields}: {some_of(values)}")
        if blank == self.item_num - 1:
            self.logger.warning(
                "No item has a text: name the columns that describe it in item_text_fields"
            )
        elif without or blank:
            self.logger.info(
                f"Of {self.item_num - 1} items {without} have no attribute value and {blank} no text: "
                "a prompt can reach them only by what the training learns of them"
            )

    def _item_strings(self, fields: list[str]) -> list[str]:
        """The words of `fields` of every item: "Toy Story. Animation, Children's, Comedy".

        Columns that may be prompted for are lists of values, all others are running text.
        """
        parts: list[list[str]] = [[] for _ in range(self.item_num)]
        for field in fields:
            ids = attribute_ids(self, field)
            tokens = self.field2id_token[field]
            glue = ", " if field in self.config["prompt_fields"] else " "
            for item in range(1, self.item_num):
                words = glue.join(str(tokens[i]).replace("_", " ") for i in ids[item] if i)
                if words:
                    parts[item].append(words)
        return [". ".join(part) for part in parts]

    def _logged_prompts(self) -> list[tuple[str, Intent | None]]:
        path = Path(self.dataset_path) / f"{self.dataset_name}.{SUFFIX}"
        asked = LOGGED_FIELD in self.inter_feat
        if not path.is_file():
            if asked:
                raise DPRError(
                    f"the interactions of {self.dataset_name} name prompts ({self.prompt_field}), but "
                    f"there is no file {path}; write one, or give PROMPT_ID_FIELD another name"
                )
            return []
        prompts = PromptFile(path, self.attributes.values, self.config).prompts
        if not asked:
            raise DPRError(
                f"{path} is there, but the interactions have no column {self.prompt_field}:token that "
                "says which prompt came with which"
            )
        tokens = [str(token) for token in self.field2id_token[self.prompt_field][1:]]
        unknown = [token for token in tokens if token not in prompts]
        if unknown:
            raise DPRError(
                f"an interaction of {self.dataset_name} came with the prompt {unknown[0]!r}, which {path} "
                "does not hold (an empty cell is no prompt)"
            )
        many = int((self.inter_feat[LOGGED_FIELD] > 0).sum())
        self.logger.info(
            f"{many} interactions came with one of the {len(tokens)} prompts of {path.name}"
        )
        return [("", Intent()), *(prompts[token] for token in tokens)]

    def data_augmentation(self) -> None:
        """Make one row per target, as RecBole does, but no lists: only where its history stands.

        Source: `SequentialDataset.data_augmentation` of RecBole 1.2.1, which this replaces.
        """
        self._aug_presets()
        self._check_field("uid_field", "time_field")
        self.sort(by=[self.uid_field, self.time_field], ascending=True)
        self.history = {field: self.inter_feat[field] for field in self.inter_feat}
        if self.prompt_field in self.history:
            # A batch's own prompt ids count from a table of what is asked there, so these are apart.
            self.history[LOGGED_FIELD] = self.history.pop(self.prompt_field)
        users = self.history[self.uid_field].numpy()
        starts = np.flatnonzero(np.r_[True, users[1:] != users[:-1]])
        place = np.arange(len(users)) - np.repeat(starts, np.diff(np.r_[starts, len(users)]))
        rows = np.flatnonzero(place > 0)
        lonely = len(starts) - int((place == 1).sum())
        if not len(rows):
            raise DPRError(
                f"every user of {self.dataset_name} has a single interaction: there is no history to "
                "learn from"
            )
        if lonely:
            self.logger.warning(
                f"{lonely} of {len(starts)} users have a single interaction; they have no history and "
                "take no part"
            )
        length = torch.from_numpy(np.minimum(place[rows], self.max_item_list_len))
        self.inter_feat = self.inter_feat[torch.from_numpy(rows)]
        extra = {
            self.item_list_length_field: length,
            ROW_FIELD: torch.from_numpy(rows),
            self.prompt_field: torch.zeros(len(rows), dtype=torch.long),
        }
        if LOGGED_FIELD in self.history:
            extra[LOGGED_FIELD] = self.history[LOGGED_FIELD][rows]
        self.inter_feat.update(Interaction(extra))
        for field in extra.keys() - {self.item_list_length_field}:
            self.set_field_property(field, FeatureType.TOKEN, FeatureSource.INTERACTION, 1)

    def __getitem__(self, index, join: bool = True) -> Interaction:
        """The interactions at `index`, histories cut to their lists ``[batch, L, ...]``."""
        interaction = self.inter_feat[index]
        row = interaction[ROW_FIELD]
        length = interaction[self.item_list_length_field]
        for field, values in self.history.items():
            if field not in (self.uid_field, LOGGED_FIELD):
                list_field = field + self.config["LIST_SUFFIX"]
                interaction[list_field] = cut(values, row - length, length, self.max_item_list_len)
        if self.whole_histories:
            users = self.history[self.uid_field]
            place = row - torch.searchsorted(users, interaction[self.uid_field])
            items = self.history[self.iid_field]
            longest = int(place.max()) if len(place) else 0
            interaction[SEEN_LIST] = cut(items, row - place, place, longest)
        return self.join(interaction) if join else interaction

    def last_items(self) -> Interaction:
        """All interactions, with their lists alone: whole histories of a whole split would fill the memory."""
        plain = self.copy(self.inter_feat)
        plain.whole_histories = False
        return plain[np.arange(len(plain))]

    def histories(self, rows: np.ndarray) -> list[list[str]]:
        """The histories of the interactions at `rows` as item tokens, oldest first: whole ones, or their lists."""
        interactions = self[rows]
        whole = SEEN_LIST in interactions
        lists = interactions[SEEN_LIST if whole else self.iid_field + self.config["LIST_SUFFIX"]]
        return [
            [str(token) for token in np.atleast_1d(self.id2token(self.iid_field, row[row > 0]))]
            for row in lists
        ]

    def repeats(self) -> float:
        """The share of the interactions whose item stands in the user's history already."""
        pairs = self.history[self.uid_field] * self.item_num + self.history[self.iid_field]
        first = np.unique(pairs.numpy(), return_index=True)[1]
        again = np.ones(len(pairs), dtype=bool)
        again[first] = False
        return float(again[self.inter_feat[ROW_FIELD].numpy()].mean())

    def with_prompts(self, rows: Tensor, prompt_ids: Tensor) -> PromptDataset:
        """The interactions at `rows`, each with its prompt; everything else is shared.

        Parameters
        ----------
        rows : LongTensor ``[n]``
            Rows of this data set.
        prompt_ids : LongTensor ``[n]``
            Ids of a `PromptTable`, 0 for no prompt.
        """
        interactions = self.inter_feat[rows]
        interactions.update(Interaction({self.prompt_field: prompt_ids}))
        return self.copy(interactions)

    def inter_matrix(self, form: str = "coo", value_field: str | None = None):
        """RecBole's sparse user-item matrix; the first item of a user's history is no target."""
        first = self.inter_feat[self.inter_feat[self.item_list_length_field] == 1][ROW_FIELD] - 1
        pairs = {
            field: torch.cat([self.inter_feat[field], values[first]])
            for field, values in self.history.items()
            if field in self.inter_feat  # DIEN's negative histories are not
        }
        return self._create_sparse_matrix(
            Interaction(pairs), self.uid_field, self.iid_field, form, value_field
        )


def cut(values: Tensor, start: Tensor, length: Tensor, width: int) -> Tensor:
    """Cut ``values[start : start + length]`` for every row and pad with zeros on the right.

    Parameters
    ----------
    values : Tensor ``[n, ...]``
    start, length : LongTensor ``[batch]``
    width : int
        Length of the longest row allowed.

    Returns
    -------
    Tensor ``[batch, width, ...]``
    """
    step = torch.arange(width)
    real = step < length[:, None]
    lists = values[(start[:, None] + step).clamp(max=len(values) - 1)]
    lists[~real] = 0
    return lists
