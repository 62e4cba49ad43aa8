"""What re-ranking does with scores, whoever gives them."""

from types import SimpleNamespace

import pytest
import torch

from recbole_dpr.errors import DPRError
from recbole_dpr.evaluation.rerank import best_items, rerankers
from recbole_dpr.evaluation.systems import PromptedBatch


def batch(n_users=1, n_items=13):
    """Users whose backbone ranks the items by their ids."""
    falling = -torch.arange(n_items).float().repeat(n_users, 1)
    none = torch.zeros(n_users, 3).bool()
    return PromptedBatch(falling, none, none, SimpleNamespace())


def rankings(scores):
    return scores.argsort(dim=1, descending=True, stable=True).tolist()


def reversing(batch, candidates):
    """A scorer that turns the backbone's order around."""
    return candidates.float()


@pytest.mark.parametrize("k", [1, 5, 39, 99])
def test_the_best_items_are_those_of_a_stable_sort(k):
    scores = torch.randint(0, 6, (30, 40), generator=torch.Generator().manual_seed(k)).float()
    scores[:3, :20] = -torch.inf  # never recommended
    in_order = scores[:, 1:].sort(dim=1, descending=True, stable=True).indices + 1
    assert torch.equal(best_items(scores, k), in_order[:, :k])


def test_only_the_top_k_are_put_in_the_scorers_order():
    systems = rerankers(reversing, {"rerank_3": 3, "rerank_5": 5})
    given = batch()
    rest = [list(range(k + 1, 13)) for k in (3, 5)]
    assert rankings(systems["rerank_3"](given)) == [[3, 2, 1, *rest[0], 0]]
    assert rankings(systems["rerank_5"](given)) == [[5, 4, 3, 2, 1, *rest[1], 0]]


def test_a_depth_beyond_the_catalogue_is_the_whole_catalogue():
    system = rerankers(reversing, {"rerank_99": 99})["rerank_99"]
    assert rankings(system(batch())) == [[*range(12, 0, -1), 0]]


def test_the_depths_share_one_pass_of_the_scorer():
    calls = []

    def counting(batch, candidates):
        calls.append(candidates.shape)
        return reversing(batch, candidates)

    systems = rerankers(counting, {"rerank_2": 2, "rerank_6": 6})
    first, second = batch(2), batch()
    for given in (first, second):
        for system in systems.values():
            system(given)
    assert calls == [(2, 6), (1, 6)]


def test_a_scorer_that_gives_no_number_is_named():
    system = rerankers(lambda _, candidates: candidates / 0 * 0, {"rerank_4": 4})["rerank_4"]
    with pytest.raises(DPRError, match=r"re-ranker's scores are NaN .* rerank_model"):
        system(batch())


def test_what_the_scorer_ties_stays_a_tie():
    system = rerankers(lambda _, candidates: candidates % 2, {"rerank_4": 4})["rerank_4"]
    scores = system(batch())[0]
    assert scores[1] == scores[3] > scores[2] == scores[4] > scores[5]
