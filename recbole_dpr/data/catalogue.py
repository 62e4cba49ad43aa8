"""Catalogue: all that serving needs to know of the items, in one plain json file."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from recbole_dpr.data.attributes import Attributes
from recbole_dpr.data.dataset import PromptDataset
from recbole_dpr.data.facts import FACTS_FILE, Facts, FactualDataset
from recbole_dpr.data.prompts import multi_hot
from recbole_dpr.errors import DPRError
from recbole_dpr.files import write_text

CATALOGUE_FILE = "items.json"
USERS_FILE = "users.json"
LONGEST = 1000  # items of a history that a request may hold
EXAMPLES = 50  # users whose histories a run folder keeps, to try the model on


@dataclass(frozen=True)
class Catalogue:
    """Items by internal id; id 0 is the padding item.

    Parameters
    ----------
    item_field : str
        RecBole's name of the item column.
    tokens, titles : list of str ``[n_items]``
    attributes : Attributes
    called : list of list of str ``[V]``
        What each attribute value may be called, its readable name first.
    read_as : dict of str to str
        Words that are read as others.
    facts : Facts
        What the model asks its data set for beside the number of items.
    users_hash : str
        Of the tokens of all users in the order of their ids; "" in older folders.
    """

    item_field: str
    tokens: list[str]
    titles: list[str]
    attributes: Attributes
    called: list[list[str]]
    read_as: dict[str, str] = field(default_factory=dict)
    facts: Facts = field(default_factory=Facts)
    users_hash: str = ""

    @classmethod
    def from_dataset(
        cls, dataset: PromptDataset, called: list[list[str]], read_as: dict[str, str] | None = None
    ) -> Catalogue:
        """Take the catalogue out of a built data set; `called` and `read_as` are a phrasebook's."""
        tokens = [str(token) for token in dataset.field2id_token[dataset.iid_field]]
        users = "\n".join(map(str, dataset.field2id_token[dataset.uid_field]))
        users_hash = hashlib.blake2b(users.encode(), digest_size=8).hexdigest()
        attributes = dataset.attributes
        return cls(
            dataset.iid_field,
            tokens,
            dataset.titles,
            attributes,
            called,
            read_as or {},
            users_hash=users_hash,
        )

    @property
    def readable(self) -> list[str]:
        """One name of each attribute value."""
        return [readable for readable, *_ in self.called]

    def __len__(self) -> int:
        return len(self.tokens)

    def num(self, field: str) -> int:
        """Number of items, padding included: RecBole's models ask their data set for it."""
        assert field == self.item_field
        return len(self)

    def as_dataset(self, config: Any) -> FactualDataset:
        """What a RecBole model takes for its data set."""
        return FactualDataset(self.facts, self.item_field, config)

    def check(
        self, dataset: PromptDataset, run_dir: str | Path, users: bool, values: bool = True
    ) -> None:
        """Refuse a data set whose items, values or users are not those that the weights of this run stand for.

        Parameters
        ----------
        users : bool
            Whether the users count: to a model with a vector for each of them.
        values : bool
            Whether the values count; to a backbone they do not.

        Raises
        ------
        DPRError
            Naming which of them differ.
        """
        here = Catalogue.from_dataset(dataset, [])
        users = users and bool(self.users_hash)
        for what, counts, of_run, of_data in (
            ("items", True, self.tokens, here.tokens),
            ("values of prompt_fields", values, self.attributes.values, here.attributes.values),
            ("users", users, self.users_hash, here.users_hash),
        ):
            if counts and of_run != of_data:
                raise DPRError(
                    f"the {what} of {dataset.dataset_name} in {dataset.config['data_path']} are not those "
                    f"that {run_dir} was trained on"
                )

    def save(self, path: str | Path) -> None:
        """Write the catalogue as json, whole or not at all."""
        attributes = self.attributes
        content = {
            "item_field": self.item_field,
            "users_hash": self.users_hash,
            "values": attributes.values,
            "fields": attributes.fields,
            "called": self.called,
            "read_as": self.read_as,
            "items": [
                [token, title, row.nonzero()[:, 0].tolist()]
                for token, title, row in zip(
                    self.tokens, self.titles, attributes.matrix, strict=True
                )
            ],
        }
        write_text(path, json.dumps(content, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Catalogue:
        """Read what `save` wrote.

        Raises
        ------
        DPRError
            If the file is missing, cut off or not what `save` writes.
        """
        try:
            content: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
            values = [str(value) for value in content["values"]]
            items = content["items"]
            matrix = multi_hot([has for _, _, has in items], len(values))
            tokens = [str(token) for token, _, _ in items]
            titles = [str(title) for _, title, _ in items]
            fields = list(content["fields"])
            called = [[str(name) for name in names] for names in content["called"]]
            read_as = {str(word): str(text) for word, text in content.get("read_as", {}).items()}
            if not len(fields) == len(called) == len(values) or not all(called):
                raise ValueError("values, fields and names differ in number")
        except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise DPRError(f"{path} is missing or damaged ({error}); use another run") from error
        attributes = Attributes(values, fields, matrix)
        facts = Facts.load(Path(path).with_name(FACTS_FILE))
        item_field, users_hash = str(content["item_field"]), str(content.get("users_hash", ""))
        return cls(item_field, tokens, titles, attributes, called, read_as, facts, users_hash)


def check_catalogue(
    run_dir: str | Path, dataset: PromptDataset, users: bool, values: bool = True
) -> None:
    """`Catalogue.check` of a run folder; one that has no catalogue yet is not checked.

    Raises
    ------
    DPRError
        Also where the folder's catalogue is damaged.
    """
    path = Path(run_dir) / CATALOGUE_FILE
    if path.is_file():
        Catalogue.load(path).check(dataset, run_dir, users, values)


def save_users(path: str | Path, dataset: PromptDataset) -> None:
    """Write the histories of a few users of a split, as ``[[user, [item, ...]], ...]``."""
    rows = np.arange(min(EXAMPLES, len(dataset)))
    users = dataset.id2token(dataset.uid_field, dataset.inter_feat[dataset.uid_field][rows])
    known = [
        [str(user), history[-LONGEST:]]
        for user, history in zip(np.atleast_1d(users), dataset.histories(rows), strict=True)
    ]
    write_text(path, json.dumps(known, ensure_ascii=False) + "\n")


def load_users(path: str | Path) -> list[tuple[str, list[str]]]:
    """Read what `save_users` wrote; none where there is no such file, or a damaged one."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        return [(str(user), [str(item) for item in known]) for user, known in content]
    except (OSError, ValueError, TypeError):
        return []
