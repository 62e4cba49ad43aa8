"""The systems that option ``compare`` adds to those that always run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from recbole_dpr.checks import compared_system
from recbole_dpr.evaluation.rerank import CosineScorer, Scorer, rerankers
from recbole_dpr.evaluation.scorers import find_scorer
from recbole_dpr.evaluation.systems import System, post_filter
from recbole_dpr.evaluation.text_systems import Additive, Semantic, TextSimilarity

Tune = Callable[[], Mapping[str, float]]


def compared_systems(
    config: Any, similarity: TextSimilarity, scorer: Scorer | None, tune: Tune
) -> tuple[dict[str, System], dict[str, Any]]:
    """Return the systems of option ``compare`` by name, and what was tuned for them.

    Parameters
    ----------
    config : DPRConfig
        Reads ``compare``.
    similarity : TextSimilarity
        Of the prompts that will be asked.
    scorer : Scorer or None
        Of the re-rankers; None is the cosine.
    tune : callable
        Gives the weights of `Additive`; called where that was asked for.
    """
    asked = {name: compared_system(name) for name in config["compare"]}
    depths = {name: k for name, (family, k) in asked.items() if family == "rerank"}
    systems: dict[str, System] = {}
    tuned: dict[str, Any] = {}
    if depths:
        systems |= rerankers(scorer or CosineScorer(similarity), depths)
    for name, (family, k) in asked.items():
        if family == "additive":
            tuned[name] = dict(tune())
            systems[name] = Additive(similarity, tuned[name])
        elif family == "semantic":
            systems[name] = Semantic(similarity)
        elif family == "post_filter":
            systems[name] = partial(post_filter, k=k)
    return {name: systems[name] for name in asked}, tuned


def rerank_scorer(config: Any, dataset: Any, prompts: list[str]) -> Scorer | None:
    """The scorer of option ``rerank_model``, or None where there is none; its weights come later.

    Parameters
    ----------
    dataset : PromptDataset
        Gives ``titles`` and ``item_text``.
    prompts : list of str
        Texts by prompt id.

    Raises
    ------
    DPRError
        As `find_scorer`.
    """
    asked = any(compared_system(name)[0] == "rerank" for name in config["compare"])
    if not asked or not config["rerank_model"]:
        return None
    folder, kind = find_scorer(config["rerank_model"])
    return kind(
        folder,
        dataset.titles,
        dataset.item_text,
        prompts,
        config["rerank_batch_size"],
        config["device"],
        config["show_progress"],
    )
