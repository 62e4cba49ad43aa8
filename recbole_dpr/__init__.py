"""recbole_dpr: a RecBole plugin whose recommendations follow a plain-language prompt.

    import recbole_dpr

    result = recbole_dpr.run_recbole_dpr(model="DPR-SASRec", dataset="ml-100k")
    recommender = recbole_dpr.load(result["run_dir"])
    recommender.recommend([["50", "181"]], ["a comedy, nothing romantic"], k=10)

The names below are imported when first used: torch takes seconds to import, and
`python run_recbole_dpr.py --help` should not have to wait for it.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from recbole_dpr.errors import DPRError

if TYPE_CHECKING:
    from recbole_dpr.config import DPRConfig
    from recbole_dpr.quick_start import objective_function, run_recbole_dpr
    from recbole_dpr.serving.recommender import load

__version__ = "0.1.0"

__all__ = ["DPRConfig", "DPRError", "load", "objective_function", "run_recbole_dpr"]

_HOME = {
    "DPRConfig": "recbole_dpr.config",
    "load": "recbole_dpr.serving.recommender",
    "objective_function": "recbole_dpr.quick_start",
    "run_recbole_dpr": "recbole_dpr.quick_start",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'recbole_dpr' has no attribute {name!r}")
    if find_spec("recbole") is None:
        # pip cannot install RecBole 1.2.1 on Python 3.12: see docs/dependencies.md.
        raise DPRError(
            "RecBole is not installed; install it with: pip install --no-deps recbole==1.2.1"
        )
    return getattr(import_module(_HOME[name]), name)
