"""What a prompt asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from recbole_dpr.errors import DPRError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Intent:
    """Attribute values that are wanted and values that are not, as indices 0..V-1.

    Both are kept sorted and without repeats, so that equal wishes are equal intents.

    Raises
    ------
    DPRError
        If a value is both wanted and unwanted.
    """

    include: tuple[int, ...] = ()
    exclude: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for side in ("include", "exclude"):
            values = tuple(sorted({int(value) for value in getattr(self, side)}))
            object.__setattr__(self, side, values)
        both = set(self.include) & set(self.exclude)
        if both:
            raise DPRError(f"an intent includes and excludes the same values {sorted(both)}")

    @classmethod
    def of(cls, include: Tensor, exclude: Tensor) -> Intent:
        """The intent of two bool ``[V]``."""
        return cls(*(tuple(side.nonzero()[:, 0].tolist()) for side in (include, exclude)))

    @property
    def kind(self) -> str:
        """Either "positive", "negative", "compound" or "neutral" (asks for nothing)."""
        if self.include:
            return "compound" if self.exclude else "positive"
        return "negative" if self.exclude else "neutral"


def in_words(asked: Mapping[str, Sequence[str]]) -> str:
    """The names of values under "include" and "exclude" in words; "" where nothing is asked for."""
    sides = (side for side in ("include", "exclude") if asked[side])
    return "; ".join(f"{side} {', '.join(asked[side])}" for side in sides)
