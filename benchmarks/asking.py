"""Of whom the questions of requests.py and show_prompts.py are asked."""

from __future__ import annotations

import numpy as np

from recbole_dpr.config import DPRConfig
from recbole_dpr.data.loading import load_data


def histories_of(run_dir: str, users: int, seed: int) -> list[list[str]]:
    """The histories of some of a run's test users, drawn once by `seed`."""
    config = DPRConfig.from_run(run_dir)
    split = load_data(config).test.dataset
    rows = np.random.default_rng(seed).permutation(len(split))[:users]
    return split.histories(np.sort(rows))
