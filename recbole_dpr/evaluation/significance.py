"""Is one system better than another by more than chance? Paired over the users.

A p-value tells of the users: whether other users of the same kind would give the same sign. It says
nothing of training seeds; for those there is `seed_interval`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy import stats

from recbole_dpr.errors import DPRError
from recbole_dpr.metrics import ndcg_gain


def paired(ranks_by_system: Mapping[str, Any], reference: str, k: int) -> dict[str, dict[str, Any]]:
    """Compare the NDCG@k of one system with that of each other, user by user.

    A paired two-sided t-test on the users' NDCG. Most users gain nothing from either system, which
    Wilcoxon's signed-rank test leaves out, and it tests ranks of differences where tables show means;
    the t-test is about the mean, and with hundreds of users needs no normal distribution (Smucker,
    Allan and Carterette, CIKM 2007; Urbano, Lima and Hanjalic, SIGIR 2019).

    Parameters
    ----------
    ranks_by_system : mapping of name to array-like ``[n]`` or ``[runs, n]``
        The target's rank for the same users in the same order, as ``ranks.json`` has it. A user's
        NDCG is averaged over the runs (seeds) before the test, as runs are not independent users.
    reference : str
        The system that is compared with all others.
    k : int

    Returns
    -------
    dict
        By each other system: ``difference`` (mean NDCG of the reference minus that of the system),
        ``p`` and ``p_holm`` (Holm's correction over the systems, those that gain the same for every
        user being one); empty for fewer than two users.
    """
    gains = {
        name: ndcg_gain(torch.as_tensor(ranks), k).numpy()
        for name, ranks in ranks_by_system.items()
    }
    gains = {name: np.atleast_2d(gain).mean(axis=0) for name, gain in gains.items()}
    own = gains.pop(reference)
    if len(own) < 2:
        return {}
    p = {gain.tobytes(): paired_p(own - gain) for gain in gains.values()}
    corrected = dict(zip(p, holm([*p.values()]), strict=True))
    return {
        name: {
            "difference": float((own - gain).mean()),
            "p": p[gain.tobytes()],
            "p_holm": corrected[gain.tobytes()],
        }
        for name, gain in gains.items()
    }


def paired_p(differences: np.ndarray) -> float:
    """Return the two-sided p-value of the mean of ``[n]`` differences; 1 where all are zero.

    By Student's t-test; where it is the same difference for everybody, which leaves t without a
    spread, by the sign test.
    """
    if not differences.any():
        return 1.0
    if (differences == differences[0]).all():
        return float(2 * 0.5 ** len(differences))
    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def holm(p: Sequence[float]) -> list[float]:
    """Correct p-values for the number of tests (Holm 1979): family-wise error, any dependence.

    The i-th smallest (from 0) of m is multiplied by m - i, and none is less than one before it.
    """
    order = np.argsort(p)
    steps = np.asarray(p, dtype=float)[order] * np.arange(len(p), 0, -1)
    corrected = np.empty(len(p))
    corrected[order] = np.maximum.accumulate(steps).clip(max=1.0)
    return corrected.tolist()


def pooled(runs: Sequence[Mapping[str, Any]], phrases: str, task: str) -> dict[str, np.ndarray]:
    """Put the ranks of several runs on each other, for `paired`: by system, ``[runs, n]``.

    Parameters
    ----------
    runs : sequence of mappings
        The content of ``ranks.json`` of one model on one data set, one per seed.
    phrases : str
        "unseen", "train", "hard" or "logged".
    task : str

    Raises
    ------
    DPRError
        If the runs did not ask the same users for the same values; `task_seed`, the data and the length of
        histories must be the same.
    """
    parts = [run[phrases][task] for run in runs]
    asked = {part["asked"] for part in parts if "asked" in part}  # older runs do not say
    if any(part["rows"] != parts[0]["rows"] for part in parts) or len(asked) > 1:
        raise DPRError(
            f"the runs asked different users, or for other values, on the {task} task: only runs on the same "
            "data with the same task_seed and length of histories can be put together"
        )
    common = [name for name in parts[0]["ranks"] if all(name in part["ranks"] for part in parts)]
    return {name: np.array([part["ranks"][name] for part in parts], dtype=float) for name in common}


def seed_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float] | None:
    """Return the confidence interval of the mean over training seeds, or None for fewer than two.

    Student's t with one degree of freedom less than there are seeds: wide for two or three.
    """
    if len(values) < 2:
        return None
    mean, error = float(np.mean(values)), float(stats.sem(values))
    if not error:
        return mean, mean
    low, high = stats.t.interval(level, len(values) - 1, loc=mean, scale=error)
    return float(low), float(high)
