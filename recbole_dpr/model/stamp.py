"""What was computed from weights, kept for as long as it holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

from torch import Tensor

T = TypeVar("T")
Stamp = list[tuple[int, int]]


class Kept(Generic[T]):
    """What was made last, and what it was made of: a `stamp`, say."""

    def __init__(self) -> None:
        self._last: tuple[Any, T] | None = None

    def get(self, made_of: Any, make: Callable[[], T]) -> T:
        """What was kept, or what `make` gives if it was made of something else."""
        if self._last is None or self._last[0] != made_of:
            self._last = made_of, make()
        return self._last[1]


def stamp(weights: Iterable[Tensor]) -> Stamp:
    """What is another as soon as any of the weights changes in place, or moves to another device.

    Torch's fused optimizers change weights without counting; RecBole has none of them.
    """
    # torch counts the changes of a tensor; another device gives it another address.
    return [(weight._version, weight.data_ptr()) for weight in weights]
