"""Drawing intents for targets, in evaluation and in training."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from recbole_dpr.data.attributes import Attributes
from recbole_dpr.data.logged import LoggedIntents

KINDS = ("positive", "negative", "compound")
LOOKED_UP = 1 << 27  # bytes of values of histories that are looked up at once


def draw_values(weights: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draw one value per row in proportion to its weight, long ``[n]``; -1 where all are zero.

    Parameters
    ----------
    weights : Tensor ``[n, V]``, none negative
    """
    possible = weights.sum(dim=1) > 0
    drawn = torch.full((len(weights),), -1)
    if possible.any():
        drawn[possible] = torch.multinomial(weights[possible].float(), 1, generator=generator)[:, 0]
    return drawn


def draw_intents(
    target_values: Tensor, history_counts: Tensor, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Draw for each target a value that is wanted and one that is not (design: protocol).

    Wanted: uniform over the target's values. Unwanted: a value of the history, by its frequency
    there, that the target lacks.

    Parameters
    ----------
    target_values : BoolTensor ``[n, V]``
    history_counts : Tensor ``[n, V]``
        How many items of the history have each value.

    Returns
    -------
    wanted, unwanted : LongTensor ``[n]``
        -1 where there is none.
    """
    wanted = draw_values(target_values, generator)
    unwanted = draw_values(history_counts * ~target_values, generator)
    return wanted, unwanted


def history_counts(attributes: Attributes, item_lists: Tensor) -> Tensor:
    """How many items of each list have each value: int16 ``[n, V]`` from lists ``[n, L]``."""
    n_values = attributes.matrix.shape[1]
    counts = torch.zeros(len(item_lists), n_values, dtype=torch.int16)
    rows = max(1, LOOKED_UP // max(1, item_lists.shape[1] * n_values))
    for lists, part in zip(item_lists.split(rows), counts.split(rows), strict=True):
        torch.sum(attributes.matrix[lists], dim=1, dtype=torch.int16, out=part)
    return counts


def target_intents(
    attributes: Attributes,
    item_lists: Tensor,
    targets: Tensor,
    mix: dict[str, Any],
    logged: Tensor | None = None,
    known: LoggedIntents | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw an intent for every target of a batch of training windows (global torch generator).

    A target for which the drawn kind has no valid value keeps the side that it has; where nothing is
    left it is not asked at all. A target that came with a prompt of its own is asked that.

    Drawn on the CPU, returned on the device of the targets: a seed draws the same everywhere.

    Parameters
    ----------
    item_lists, targets : LongTensor ``[B, L]``
        A window's items, and the item that follows each position (0: no target there).
    mix : dict
        Shares of positive, negative and compound.
    logged : LongTensor ``[B, L]``, optional
        Numbers of the prompts that the targets came with, 0 for none; `known` says what they ask for.

    Returns
    -------
    where : BoolTensor ``[B, L]``
        The n targets that got an intent.
    include, exclude : BoolTensor ``[n, V]``
    """
    device = targets.device
    item_lists, targets = item_lists.cpu(), targets.cpu()
    where = targets > 0
    matrix = attributes.matrix
    counts = matrix[item_lists].cumsum(dim=1, dtype=torch.int32)[where]
    wanted, unwanted = draw_intents(matrix[targets[where]], counts)
    shares = torch.tensor([float(mix[kind]) for kind in KINDS])
    kind = torch.multinomial(shares, len(wanted), replacement=True)
    include = _marks(wanted.where(kind != 1, -1), len(attributes))
    exclude = _marks(unwanted.where(kind != 0, -1), len(attributes))
    if logged is not None and known is not None:
        numbers = logged.cpu()[where]
        own = numbers > 0
        include[own], exclude[own] = known.include[numbers[own]], known.exclude[numbers[own]]
    asked = include.any(dim=1) | exclude.any(dim=1)
    where = where.clone()
    where[where.clone()] = asked
    return where.to(device), include[asked].to(device), exclude[asked].to(device)


def _marks(values: Tensor, n_values: int) -> Tensor:
    marks = torch.zeros(len(values), n_values + 1, dtype=torch.bool)
    marks[torch.arange(len(values)), values] = True  # -1 marks the extra column
    return marks[:, :n_values]
