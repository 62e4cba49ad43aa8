"""Plain models are served, too: without prompts, and as they rank themselves."""

import json

import pytest
import torch

import recbole_dpr
from recbole_dpr.errors import DPRError
from recbole_dpr.serving.requests import parse_request, respond

HISTORY = ["i1", "i4", "i7", "i2"]


def test_a_plain_model_takes_no_prompt(tiny_options):
    run = recbole_dpr.run_recbole_dpr("SASRec", "tiny", config_dict=tiny_options)["run_dir"]
    recommender = recbole_dpr.load(run)
    assert len(recommender.recommend([HISTORY], [None], k=3)[0]) == 3
    for prompt in ("red", ["", "red"]):
        with pytest.raises(DPRError, match="SASRec takes no prompts: train DPR-SASRec"):
            recommender.recommend([HISTORY], [prompt])
    with pytest.raises(DPRError, match="prompt 0 must be a text or None"):
        recommender.recommend([HISTORY], [7])
    expected = recommender.recommend([HISTORY], [None])
    for blank in ("", "  ", ["", ""], [" ", None], []):
        assert recommender.recommend([HISTORY], [blank]) == expected
    of_the_page = {"history": HISTORY, "prompt": ["", ""], "strength": 1, "explain": True}
    answer = respond(recommender, parse_request(json.dumps(of_the_page)))
    assert [row["item"] for row in answer["items"]] == [token for token, _ in expected[0]]


def test_a_plain_model_that_wants_a_user_is_served_with_nobody(tiny_options):
    result = recbole_dpr.run_recbole_dpr("Caser", "tiny", config_dict=tiny_options)
    ((first, *rest),) = recbole_dpr.load(result["run_dir"]).recommend([["i0", "i1"]], [None], k=5)
    assert len({first, *rest}) == 5 and first[1] >= rest[-1][1]


@pytest.mark.parametrize("model", ["DIN", "DIEN"])
def test_a_plain_model_that_scores_one_item_at_a_time_is_served(tiny_options, model):
    result = recbole_dpr.run_recbole_dpr(model, "tiny", config_dict=tiny_options)
    recommender = recbole_dpr.load(result["run_dir"])
    asked = [HISTORY, HISTORY[:1]]
    together = recommender.recommend(asked, [None, None], k=24)
    for history, answer in zip(asked, together, strict=True):
        scores = [score for _, score in answer]
        assert scores == sorted(scores, reverse=True) and len(dict(answer)) == 24
        (alone,) = recommender.recommend([history], [None], k=24)
        assert [s for _, s in alone] == pytest.approx(scores, abs=1e-6)
        explained = {row["item"]: row["score"] for row in recommender.explain(history, None, k=24)}
        assert explained == pytest.approx(dict(answer), abs=1e-6)


@pytest.mark.parametrize("model", ["HGN", "BERT4Rec", "NextItNet"])
def test_vectors_of_a_plain_model_rank_as_it_does(tiny_options, model):
    """Their `forward` takes users, or items alone, or masks the last item: not all models take (items, lengths)."""
    options = tiny_options | {"train_batch_size": 64}
    recommender = recbole_dpr.load(
        recbole_dpr.run_recbole_dpr(model, "tiny", config_dict=options)["run_dir"]
    )
    asked, _ = recommender._asked([HISTORY, HISTORY[:1]], [None, None], 1.0)
    users = torch.from_numpy(recommender.user_vectors([HISTORY, HISTORY[:1]], [None, None]))
    found = users @ torch.from_numpy(recommender.item_vectors()).T
    torch.testing.assert_close(found, recommender._ranker._scores(asked), atol=1e-5, rtol=1e-5)


def test_a_plain_model_without_vectors_says_so(tiny_options):
    recommender = recbole_dpr.load(
        recbole_dpr.run_recbole_dpr("FPMC", "tiny", config_dict=tiny_options)["run_dir"]
    )
    with pytest.raises(DPRError, match="FPMC ranks by no dot product"):
        recommender.item_vectors()
