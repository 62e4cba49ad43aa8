"""Of whom the questions of requests.py and show_prompts.py are asked."""

from __future__ import annotations

import numpy as np

from recbole_dpr.data.loading import load_data
from recbole_dpr.serving.recommender import Recommender


def test_histories(recommender: Recommender, users: int, seed: int) -> list[list[str]]:
    """The histories of test users, drawn once by `seed`."""
    split = load_data(recommender.config).test._dataset
    config = recommender.config
    rows = np.random.default_rng(seed).permutation(len(split))[:users]
    interactions = split[np.sort(rows)]
    lists = interactions[split.iid_field + config["LIST_SUFFIX"]]
    lengths = interactions[split.item_list_length_field]
    tokens = recommender.catalogue.tokens
    return [
        [tokens[item] for item in row[:length]]
        for row, length in zip(lists.tolist(), lengths.tolist(), strict=True)
    ]
