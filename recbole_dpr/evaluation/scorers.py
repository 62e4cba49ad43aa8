"""Which Hugging Face model judges a user, a prompt and an item, and how."""

from __future__ import annotations

import json
from pathlib import Path

from recbole_dpr.errors import DPRError
from recbole_dpr.evaluation.cross_encoder import CrossEncoder
from recbole_dpr.evaluation.pair_scorer import WAY_OUT, PairScorer
from recbole_dpr.evaluation.yes_no import YesNo
from recbole_dpr.text.hub import find_model


def find_scorer(name: str) -> tuple[Path, type[PairScorer]]:
    """Return a model's folder and the scorer that it can be, by what its config says; loads nothing.

    Raises
    ------
    DPRError
        If there is no such model, or it is neither a causal language model nor a classifier with one
        or two labels.
    """
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    )

    folder = find_model(name, "rerank_model", WAY_OUT)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    kinds = config.get("architectures") or []
    if any(kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values() for kind in kinds):
        return folder, YesNo
    # Labels are written only where there are not two.
    labels = len(config.get("id2label") or "01")
    if (
        any(kind in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES.values() for kind in kinds)
        and labels <= 2
    ):
        return folder, CrossEncoder
    raise DPRError(
        f"rerank_model '{name}' is {' or '.join(kinds) or 'of no known kind'} with {labels} labels: "
        f"{WAY_OUT}"
    )
