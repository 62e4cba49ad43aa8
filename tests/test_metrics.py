"""Ranks, ties and shares whose right values are known by hand."""

import numpy as np
import pytest
import torch
from recbole.evaluator import Collector, Evaluator, register

from recbole_dpr.compat import bridge_numpy
from recbole_dpr.errors import DPRError
from recbole_dpr.metrics import (
    METRICS,
    PromptCollector,
    average_rank,
    register_metrics,
    top_items,
)

bridge_numpy()
register_metrics()


def settings(topk, metrics=METRICS):
    return {
        "metrics": list(metrics),
        "topk": list(topk),
        "metric_decimal_place": 12,
        "eval_args": {"mode": {"valid": "full", "test": "full"}},
        "device": torch.device("cpu"),
    }


def collect(config, scores, targets, collector=PromptCollector, **masks):
    """Collect one batch as RecBole's trainer does and return the collected tensors."""
    collecting = collector(config)
    collecting.eval_batch_collect(scores, None, torch.arange(len(scores)), targets, **masks)
    return collecting.get_data_struct()


def row(*scores):
    """One user's scores: the padding item first, then items 1, 2, ..."""
    return torch.tensor([[-torch.inf, *scores]])


def test_registering_twice_adds_each_metric_once():
    register_metrics()
    assert register.smaller_metrics.count("violation") == 1
    assert "satisfied" not in register.smaller_metrics
    assert {"satisfied", "violation"} <= set(register.metrics_dict)
    # RecBole's Config reads the tables through this second name.
    import recbole.evaluator

    assert recbole.evaluator.metric_types is register.metric_types


def test_without_ties_the_figures_are_recboles_own():
    metrics = ("NDCG", "Recall", "MRR", "Hit", "Precision", "MAP")
    config = settings([1, 5, 10], metrics)
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(300, 41, generator=generator).argsort(dim=1).float()
    scores[:, 0] = -torch.inf
    targets = torch.randint(1, 41, (300,), generator=generator)

    ours = Evaluator(config).evaluate(collect(config, scores, targets))
    recboles = Evaluator(config).evaluate(collect(config, scores, targets, Collector))

    assert ours == recboles
    assert 0.2 < ours["recall@10"] < 0.3  # chance is 10 / 40: the comparison is not of zeros


def test_a_target_stands_at_its_average_rank():
    three = row(5.0, 3.0, 3.0, 3.0, 1.0)
    assert average_rank(three, torch.tensor([2])).item() == 3  # places 2, 3, 4
    pair = row(3.0, 3.0, 1.0)
    assert average_rank(pair, torch.tensor([1])).item() == 1.5


def test_what_is_never_recommended_is_behind_all_and_fills_no_list():
    few = row(3.0, -torch.inf, -torch.inf, 1.0, -torch.inf)
    assert average_rank(few, torch.tensor([4])).item() == 2
    assert average_rank(few, torch.tensor([2])).item() == 6  # in no list, not even one of all five
    every = torch.ones(1, 6, dtype=torch.bool)
    collected = collect(settings([4]), few, torch.tensor([4]), allowed=every, forbidden=every)
    for name in ("rec.satisfied", "rec.violated"):
        assert collected[name].tolist() == [[1, 1, 0, 0]]


def test_half_a_rank_counts_as_the_worse_one():
    config = settings([1, 2], ["NDCG"])
    figures = Evaluator(config).evaluate(
        collect(config, row(3.0, 3.0, 1.0), torch.tensor([1]))  # rank 1.5
    )
    assert figures["ndcg@1"] == 0
    assert figures["ndcg@2"] == pytest.approx(1 / np.log2(3))


def test_a_constant_scorer_gains_nothing_from_the_order_of_ids():
    config = settings([10])
    scores = torch.zeros(100, 101)
    targets = torch.arange(1, 101)
    allowed = torch.zeros(100, 101, dtype=torch.bool)
    allowed[:, 1:31] = True  # the first 30 of 100 items: where torch.topk would look

    collected = collect(config, scores, targets, allowed=allowed, forbidden=~allowed)
    figures = Evaluator(config).evaluate(collected)

    assert collected["rec.rank"].tolist() == [50.5] * 100
    assert figures["hit@10"] == 0
    assert figures["satisfied@10"] == pytest.approx(0.3)
    assert figures["violation@10"] == pytest.approx(0.7)


def test_shares_are_of_the_top_items_and_cumulative_in_k():
    config = settings([1, 2, 4], ["Satisfied", "Violation"])
    allowed = torch.tensor([[True, False, True, True, False, True]])
    forbidden = torch.tensor([[False, True, False, False, False, True]])
    scores = row(9.0, 8.0, 7.0, 6.0, 5.0)  # item 5, the last, is outside the top 4

    figures = Evaluator(config).evaluate(
        collect(config, scores, torch.tensor([1]), allowed=allowed, forbidden=forbidden)
    )

    assert figures == {
        "satisfied@1": 0,
        "satisfied@2": 0.5,
        "satisfied@4": 0.5,
        "violation@1": 1,
        "violation@2": 0.5,
        "violation@4": 0.25,
    }


def test_a_tie_across_the_end_of_the_list_counts_by_its_share():
    config = settings([2], ["Satisfied"])
    allowed = torch.tensor([[False, True, True, False, False]])
    collected = collect(config, row(5.0, 3.0, 3.0, 3.0), torch.tensor([1]), allowed=allowed)
    # Place 1 is item 1; items 2, 3 and 4 share place 2, and one of them is allowed.
    assert collected["rec.satisfied"].tolist() == [[1.0, pytest.approx(1 / 3)]]


def test_without_masks_everything_satisfies_and_nothing_violates():
    collected = collect(settings([2]), row(3.0, 2.0, 1.0), torch.tensor([1]))
    assert collected["rec.satisfied"].tolist() == [[1.0, 1.0]]
    assert collected["rec.violated"].tolist() == [[0.0, 0.0]]


def test_the_padding_item_never_ranks():
    scores = torch.tensor([[99.0, 1.0, 2.0, 3.0]])
    assert top_items(scores, 3).tolist() == [[3, 2, 1]]
    assert average_rank(scores, torch.tensor([3])).item() == 1
    # A target ties with the other real items only.
    same = torch.full((1, 4), -3.0)
    assert average_rank(same, torch.tensor([1])).item() == 2


def test_the_scores_are_left_as_they_were():
    scores = torch.tensor([[99.0, 1.0, 2.0, 3.0]])
    collect(settings([2]), scores, torch.tensor([1]))
    assert scores.tolist() == [[99.0, 1.0, 2.0, 3.0]]


def test_recboles_trainer_signature_takes_the_masks_from_the_callable():
    allowed = torch.tensor([[False, True, False, False]])
    collector = PromptCollector(settings([1]), masks=lambda interaction: interaction["masks"])
    interaction = {"masks": (allowed, ~allowed)}
    collector.eval_batch_collect(
        row(1.0, 2.0, 3.0), interaction, torch.arange(1), torch.tensor([1])
    )
    assert collector.get_data_struct()["rec.violated"].tolist() == [[1.0]]


def test_a_collector_starts_afresh_after_it_was_read():
    collector = PromptCollector(settings([1]))
    for _ in range(2):
        for _ in range(3):
            collector.eval_batch_collect(row(1.0, 2.0), None, torch.arange(1), torch.tensor([2]))
        collected = collector.get_data_struct()
        assert collected["rec.rank"].tolist() == [1, 1, 1]
        assert len(collected["rec.topk"]) == 3


def test_what_other_recbole_metrics_need_is_still_collected():
    config = settings([2], ["NDCG", "ItemCoverage"])
    collected = collect(config, row(3.0, 2.0, 1.0), torch.tensor([1]))
    assert collected["rec.items"].tolist() == [[1, 2]]


def test_nan_scores_are_an_error_that_names_the_system():
    collector = PromptCollector(settings([1]), label="DPR on the positive task")
    with pytest.raises(DPRError, match="DPR on the positive task gave NaN scores to 1 of 2 users"):
        collector.eval_batch_collect(
            torch.tensor([[0.0, 1.0, torch.nan], [0.0, 1.0, 2.0]]),
            None,
            torch.arange(2),
            torch.tensor([1, 1]),
        )


def test_a_list_longer_than_the_catalogue_is_an_error():
    with pytest.raises(DPRError, match="top 3 of a catalogue of 2 items"):
        collect(settings([3]), row(1.0, 2.0), torch.tensor([1]))


def test_two_targets_of_one_user_are_an_error():
    collector = PromptCollector(settings([1]))
    with pytest.raises(DPRError, match="exactly one target"):
        collector.eval_batch_collect(
            row(1.0, 2.0), None, torch.tensor([0, 0]), torch.tensor([1, 2])
        )
