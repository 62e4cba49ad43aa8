"""The tests of significance against worked examples and scipy's own functions."""

import numpy as np
import pytest
import torch
from scipy import stats

from recbole_dpr.errors import DPRError
from recbole_dpr.evaluation.significance import holm, paired, paired_p, pooled, seed_interval
from recbole_dpr.metrics import average_rank, ndcg_gain


def test_holm_on_a_worked_example():
    # Sorted: 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1 are 0.02, 0.03, 0.06, 0.04, and none may fall.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_stays_a_probability_and_leaves_a_single_test_alone():
    assert holm([0.7, 0.6]) == [1.0, 1.0]
    assert holm([0.03]) == [0.03]
    assert holm([]) == []


def test_the_gain_is_that_of_ndcg_with_one_target():
    ranks = torch.tensor([1.0, 2.0, 2.5, 3.0, 10.0, 10.5, 400.0])
    expected = [1, 1 / np.log2(3), 0.5, 0.5, 1 / np.log2(11), 0, 0]
    assert ndcg_gain(ranks, 10).tolist() == pytest.approx(expected)


def test_systems_are_compared_by_the_paired_t_test():
    rng = np.random.default_rng(1)
    ranks = {name: rng.integers(1, 30, 500) for name in ("DPR", "filter", "backbone")}
    result = paired(ranks, "DPR", k=10)
    gains = {name: np.where(r <= 10, 1 / np.log2(r + 1), 0) for name, r in ranks.items()}
    assert list(result) == ["filter", "backbone"]
    for name, test in result.items():
        assert test["difference"] == pytest.approx((gains["DPR"] - gains[name]).mean())
        assert test["p"] == pytest.approx(stats.ttest_rel(gains["DPR"], gains[name]).pvalue)
    assert [t["p_holm"] for t in result.values()] == holm([t["p"] for t in result.values()])


def test_a_system_that_is_always_better_is_found_and_the_same_one_is_not():
    rng = np.random.default_rng(2)
    ranks = rng.integers(2, 10, 200)
    result = paired({"DPR": ranks - 1, "filter": ranks, "twin": ranks - 1}, "DPR", k=10)
    assert result["filter"]["p_holm"] < 1e-6
    assert result["filter"]["difference"] > 0
    assert result["twin"] == {"difference": 0.0, "p": 1.0, "p_holm": 1.0}


def test_systems_that_are_the_same_count_as_one_test():
    rng = np.random.default_rng(3)
    ranks = {name: rng.integers(1, 30, 500) for name in ("DPR", "filter", "backbone")}
    alone = paired(ranks, "DPR", k=10)
    twins = paired({**ranks, "post_filter": ranks["filter"]}, "DPR", k=10)
    assert twins == {**alone, "post_filter": alone["filter"]}


def test_chance_alone_is_rarely_called_significant():
    rng = np.random.default_rng(3)
    runs = [
        paired({"DPR": rng.integers(1, 40, 300), "filter": rng.integers(1, 40, 300)}, "DPR", 10)
        for _ in range(400)
    ]
    share = np.mean([run["filter"]["p"] < 0.05 for run in runs])
    assert 0.02 < share < 0.08


def test_a_difference_that_is_the_same_for_everybody_has_no_spread():
    # All on one side of 0: what a fair coin does twice in 2^n throws.
    assert paired_p(np.full(10, 0.1)) == pytest.approx(2 / 2**10)
    assert paired({"DPR": [1, 1], "filter": [3, 3]}, "DPR", 10)["filter"]["p"] == 0.5


def test_fewer_than_two_users_tell_nothing():
    assert paired({"DPR": [1], "filter": [2]}, "DPR", 10) == {}


def run(rows, **ranks):
    return {"unseen": {"positive": {"rows": rows, "ranks": ranks}}}


def test_a_users_gain_is_averaged_over_the_seeds():
    runs = [
        run([0, 1, 2], DPR=[1, 2, 9], filter=[3, 3, 3]),
        run([0, 1, 2], DPR=[3, 2, 1], filter=[3, 1, 3]),
    ]
    ranks = pooled(runs, "unseen", "positive")
    assert ranks["DPR"].tolist() == [[1, 2, 9], [3, 2, 1]]
    gain = lambda *places: np.mean([1 / np.log2(p + 1) for p in places])  # noqa: E731
    own = np.array([gain(1, 3), gain(2, 2), gain(9, 1)])
    other = np.array([gain(3, 3), gain(3, 1), gain(3, 3)])
    result = paired(ranks, "DPR", 10)["filter"]
    assert result["difference"] == pytest.approx((own - other).mean())
    assert result["p"] == pytest.approx(stats.ttest_rel(own, other).pvalue)


def test_runs_that_asked_others_are_not_put_together():
    with pytest.raises(DPRError, match="different users, or for other values, on the positive"):
        pooled([run([0, 1], DPR=[1, 1]), run([0, 2], DPR=[1, 1])], "unseen", "positive")
    runs = [run([0, 1], DPR=[1, 1]) for _ in range(3)]
    for one, asked in zip(runs, ("a", "b"), strict=False):
        one["unseen"]["positive"]["asked"] = asked
    assert pooled(runs[1:], "unseen", "positive")["DPR"].tolist() == [[1, 1], [1, 1]]
    with pytest.raises(DPRError, match="or for other values"):
        pooled(runs, "unseen", "positive")


def test_only_systems_that_all_runs_have_are_put_together():
    runs = [run([0], DPR=[1], filter=[2], additive=[3]), run([0], DPR=[1], filter=[2])]
    assert list(pooled(runs, "unseen", "positive")) == ["DPR", "filter"]


def test_the_interval_over_seeds_is_students():
    # Mean 2, standard error 1/sqrt(3), and t(0.975, 2) = 4.303.
    low, high = seed_interval([1.0, 2.0, 3.0])
    assert (low, high) == pytest.approx((2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5), abs=1e-4)
    assert seed_interval([0.2]) is None
    assert seed_interval([0.2, 0.2]) == (0.2, 0.2)


def test_ranks_of_ties_are_those_of_the_metrics():
    rank = average_rank(torch.tensor([[0.0, 1.0, 1.0, 0.5]]), torch.tensor([1]))
    assert paired({"DPR": rank.repeat(2), "filter": [2, 2]}, "DPR", 10)["filter"]["difference"] == 0
