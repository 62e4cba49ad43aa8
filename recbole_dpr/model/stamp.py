"""Whether what was computed from weights still holds."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

Stamp = list[tuple[int, int]]


def stamp(weights: Iterable[Tensor]) -> Stamp:
    """What is another as soon as any of the weights changes in place, or moves to another device.

    Torch's fused optimizers change weights without counting; RecBole has none of them.
    """
    # torch counts the changes of a tensor; another device gives it another address.
    return [(weight._version, weight.data_ptr()) for weight in weights]
