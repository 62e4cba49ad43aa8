"""The one exception of the package, and the "did you mean" that its messages share."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class DPRError(ValueError):
    """Something the user can put right.

    The message is one line that names what is wrong and the way out. The run script prints it
    without a traceback and leaves with exit status 2.
    """


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like `name`, upper and lower case being the same.

    Parameters
    ----------
    name
        What was written.
    known
        The names that would have been right.

    Returns
    -------
    str or None
        One of `known`, or None when nothing is close enough to be worth suggesting.
    """
    folded: dict[str, str] = {}
    for candidate in sorted(known):
        folded.setdefault(candidate.casefold(), candidate)
    matches = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.6)
    return folded[matches[0]] if matches else None


def some_of(names: Sequence[str], n: int = 20) -> str:
    """The first `n` names, for a message, and dots behind them where there are more."""
    return ", ".join(names[:n]) + ", ..." * (len(names) > n)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`"; did you mean 'x'?"` to end a message with, or `""` when nothing is close to `name`."""
    suggestion = nearest(name, known)
    return f"; did you mean {suggestion!r}?" if suggestion else ""
