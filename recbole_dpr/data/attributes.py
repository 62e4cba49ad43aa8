"""Which item has which attribute value, and what an intent therefore allows and forbids."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from logging import getLogger
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recbole.data.dataset import Dataset
from recbole.utils import FeatureType
from scipy.sparse import csr_array
from torch import Tensor

from recbole_dpr.data.atomic import AtomicFile
from recbole_dpr.errors import DPRError, did_you_mean

PROMPTABLE = (FeatureType.TOKEN, FeatureType.TOKEN_SEQ)
# Marks of a list that was not taken apart. The comma of "Creams,_Gels" or "1,000" is of the value itself.
UNCUT = re.compile(r"[|;]|,(?![_\d])")
UNCUT_TOKEN = re.compile(r"[|;]")  # a single value may hold any comma


@dataclass(frozen=True)
class Attributes:
    """The values that may be prompted for, and the items that have them.

    Parameters
    ----------
    values : list of str
        The values as they stand in the data ("Sci-Fi"), by index 0..V-1.
    fields : list of str
        The column that each value comes from.
    matrix : BoolTensor ``[n_items, V]``
        Row 0 is the padding item, which has none.
    """

    values: list[str]
    fields: list[str]
    matrix: Tensor

    @classmethod
    def from_dataset(cls, dataset: Dataset, fields: Sequence[str]) -> Attributes:
        """Read `fields` of the item features of a built RecBole data set.

        Raises
        ------
        DPRError
            If there is no field to prompt for, no such column, or no value in any of them.
        """
        if not fields:
            raise DPRError(
                f"no attribute to prompt for is named for {dataset.dataset_name}: set prompt_fields, "
                f"e.g. --prompt_fields=[genre]; {_choice(dataset)}"
            )
        values: list[str] = []
        sources: list[str] = []
        columns = []
        for field in fields:
            ids = attribute_ids(dataset, field)
            tokens = dataset.field2id_token[field]
            has = np.zeros((dataset.item_num, len(tokens)), dtype=bool)
            has[np.arange(len(ids))[:, None], ids] = True
            used = np.flatnonzero(has.any(axis=0))
            used = used[used != 0]  # 0 pads a short list, or stands for a missing value
            named = [i for i in used if str(tokens[i]).replace("_", " ").strip()]
            if len(named) < len(used):
                getLogger().warning(
                    f"column {field!r} of {_item_file(dataset)} holds blanks where values should stand; they count as none"
                )
            found = [str(tokens[i]) for i in named]
            _warn_of_lists(field, found, dataset.field2type[field], dataset.config["seq_separator"])
            values += found
            sources += [field] * len(named)
            columns.append(has[:, named])
        matrix = torch.from_numpy(np.concatenate(columns, axis=1))
        matrix[0] = False
        if not values:
            raise DPRError(f"no item of {dataset.dataset_name} has a value in {list(fields)}")
        return cls(values, sources, matrix)

    def __len__(self) -> int:
        return len(self.values)

    def allowed(self, include: Tensor, exclude: Tensor) -> Tensor:
        """Items with any wanted value (where any is wanted) and no unwanted one.

        Parameters
        ----------
        include, exclude : BoolTensor ``[batch, V]``

        Returns
        -------
        BoolTensor ``[batch, n_items]``
        """
        wanted = self._has_any(include) | ~include.any(dim=1, keepdim=True)
        return wanted & ~self.forbidden(exclude)

    def forbidden(self, exclude: Tensor) -> Tensor:
        """Items with any unwanted value, bool ``[batch, n_items]``."""
        return self._has_any(exclude)

    @cached_property
    def items_of(self) -> Tensor:
        """The items of every value, bool ``[V, n_items]``."""
        return self.matrix.T.contiguous()

    @cached_property
    def n_values_of(self) -> Tensor:
        """How many values each item has, long ``[n_items]``."""
        return self.matrix.sum(dim=1)

    def weighted(self, weights: Tensor) -> Tensor:
        """The sum of the weights ``[batch, V]`` of each item's values: float ``[batch, n_items]``.

        Exact for whole numbers below 2**24.
        """
        return torch.from_numpy(self._sparse @ weights.float().numpy().T).T

    @cached_property
    def _sparse(self) -> Any:
        """The matrix without its zeros: an item has a few of what may be thousands of values."""
        return csr_array(self.matrix.numpy(), dtype=np.float32)

    def _has_any(self, values: Tensor) -> Tensor:
        items_of = self.items_of.to(values.device)
        rows, asked = values.nonzero(as_tuple=True)  # one or two of hundreds of values
        has = items_of.new_zeros(len(values), items_of.shape[1])
        nth = values.cumsum(dim=1)[rows, asked]  # of the row's values
        for n in nth.unique():
            here = nth == n
            has[rows[here]] |= items_of[asked[here]]
        return has


def item_columns(dataset: Dataset) -> list[str]:
    """The columns of the .item file, the item id aside."""
    return list(_item_types(dataset))


def attribute_ids(dataset: Dataset, field: str) -> np.ndarray:
    """Token ids of a token or token_seq column, ``[n_items, longest list]``, 0 where there is none.

    Raises
    ------
    DPRError
        If the column is not there or holds numbers.
    """
    columns = item_columns(dataset)
    if field not in columns:
        raise DPRError(
            f"the items of {dataset.dataset_name} have no column {field!r}"
            + (f"; several are written [{field}]" if "," in field else did_you_mean(field, columns))
            + f"; {_choice(dataset)}"
        )
    if dataset.field2type[field] not in PROMPTABLE:
        raise DPRError(
            f"column {field!r} of {dataset.dataset_name} holds numbers; prompt_fields, item_text_fields "
            f"and title_field take columns of words: {_choice(dataset)}"
        )
    ids = dataset.item_feat[field].numpy()
    return ids[:, None] if ids.ndim == 1 else ids


def _item_file(dataset: Dataset) -> Path:
    return Path(dataset.dataset_path) / f"{dataset.dataset_name}.item"


def _item_types(dataset: Dataset) -> dict[str, FeatureType]:
    """By column, loaded or not: what nobody has asked for yet is not."""
    path = _item_file(dataset)
    if not path.is_file():
        return {}
    kinds = AtomicFile(path, dataset.config).columns.items()
    unloaded = (dataset.config["unload_col"] or {}).get("item") or []
    apart = {dataset.iid_field, *unloaded}
    return {name: FeatureType(kind) for name, kind in kinds if name not in apart}


def _choice(dataset: Dataset) -> str:
    """What the options could name, for messages."""
    path = _item_file(dataset)
    if not path.is_file():
        return f"there is no file {path}, which would hold such columns"
    names = [name for name, kind in _item_types(dataset).items() if kind in PROMPTABLE]
    return f"the token and token_seq columns of {path} are {names}"


def _warn_of_lists(field: str, values: Sequence[str], kind: FeatureType, separator: str) -> None:
    """Say where what should be lists seems to have another separator, or a type that is no list."""
    is_list = kind == FeatureType.TOKEN_SEQ
    if edged := [value for value in values if value != value.strip()]:
        separate = (
            f"let seq_separator hold it, too ({separator + ' '!r} in place of {separator!r}), or "
        )
        getLogger().warning(
            f"{len(edged)} of the {len(values)} values of column {field!r} begin or end with a blank, such as "
            f"{edged[0]!r}: {separate * is_list}take it out of the file"
        )
    uncut = [value for value in values if (UNCUT if is_list else UNCUT_TOKEN).search(value)]
    if uncut:
        way_out = (
            f"in a token_seq column {separator!r} stands between values; write it so, or set seq_separator"
            if is_list
            else f"make it {field}:token_seq, and set seq_separator to what stands between values"
        )
        getLogger().warning(
            f"{len(uncut)} of the {len(values)} values of column {field!r} look like lists, or pieces of them, "
            f"such as {uncut[0]!r}: {way_out}"
        )
