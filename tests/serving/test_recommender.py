"""A run folder answers by itself, also for people it has never seen."""

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import recbole_dpr
from recbole_dpr.data.attributes import Attributes
from recbole_dpr.errors import DPRError
from recbole_dpr.serving import histories as histories_module
from recbole_dpr.serving.reading import PromptMemory

RED, BLUE = [[f"i{n}" for n in range(24) if n % 2 == k] for k in (0, 1)]
HISTORY = ["i1", "i4", "i7", "i2"]


@pytest.fixture(scope="module")
def recommender(trained_run):
    return recbole_dpr.load(trained_run["run_dir"])


def share(found, tokens):
    return sum(token in tokens for token, _ in found) / len(found)


def test_prompts_decide_the_colour(recommender):
    alone, wanted, unwanted = recommender.recommend(
        [HISTORY] * 3, [None, "something red please", "nothing blue today"], k=5
    )
    assert 0 < share(alone, RED) < 1
    assert share(wanted, RED) == 1.0
    assert share(unwanted, BLUE) == 0.0


def test_the_answer_is_sorted_and_the_same_alone_and_in_a_batch(recommender):
    together = recommender.recommend([HISTORY, HISTORY[:1]], ["red things", None], k=24)
    alone = recommender.recommend([HISTORY], ["red things"], k=24)
    assert [token for token, _ in together[0]] == [token for token, _ in alone[0]]
    scores = [score for _, score in together[0]]
    assert scores == sorted(scores, reverse=True) and len(set(together[0])) == 24


def test_scores_equal_those_of_the_evaluation(trained_run, recommender):
    """The run's own figures, from the loaded model and the raw file alone."""
    path = Path(trained_run["run_dir"]).parents[1] / "data" / "tiny" / "tiny.inter"
    rows = [line.split("\t") for line in path.read_text().splitlines()[1:]]
    users = {user for user, _, _ in rows}
    histories = {u: [i for x, i, _ in rows if x == u] for u in users}
    answers = recommender.recommend([h[:-1] for h in histories.values()], [None] * len(users))
    hits = [
        history[-1] in [token for token, _ in answer]
        for history, answer in zip(histories.values(), answers, strict=True)
    ]
    expected = trained_run["tasks"]["standard"]["DPR"]["hit@10"]
    assert sum(hits) / len(hits) == pytest.approx(expected)


def test_only_the_last_items_of_a_long_history_count(recommender):
    long = [f"i{n % 24}" for n in range(100)]
    assert recommender.recommend([long], [None]) == recommender.recommend([long[-10:]], [None])


@pytest.mark.parametrize(
    "prompt",
    ["", "   ", "\t\n", None, "x" * 100_000, "赤いものをください", "red\x00\x07please", "🙂"],
)
def test_any_text_is_answered(recommender, prompt):
    (answer,) = recommender.recommend([HISTORY], [prompt], k=3)
    assert len(answer) == 3 and all(torch.isfinite(torch.tensor(score)) for _, score in answer)


@pytest.mark.parametrize("prompt", ["", "  \n", None])
def test_a_blank_prompt_changes_nothing(recommender, prompt):
    assert recommender.recommend([HISTORY], [prompt]) == recommender.recommend([HISTORY], [None])


@pytest.mark.parametrize(
    ("histories", "prompts", "k", "message"),
    [
        ([["i98", "i99"]], [None], 3, "history 0 holds 'i98', which is no item of tiny"),
        ([7], [None], 3, "history 0 must be a list"),
        (7, [None], 3, "histories must be a list"),
        ([["i1"]], "x", 3, "prompts must be a list"),
        ([["i1"]], [{"a": 1}], 3, "prompt 0 must be a text or None, or a list of these, not dict"),
        ([["i1"], []], [None, None], 3, "history 1 must be a list of at least one item"),
        (["i1"], [None], 3, "history 0 must be a list"),
        ([["i1"]], [], 3, "1 histories came with 0 prompts"),
        ([["i1"]], [7], 3, "prompt 0 must be a text or None.*, not int"),
        ([["i1"]], [None], 0, "k must be a whole number from 1 to 24"),
        ([["i1"]], [None], 25, "k must be a whole number from 1 to 24"),
        ([["i1"]], [None], True, "k must be a whole number from 1 to 24"),
        ([["i1"]], [None], 10**30, "k must be a whole number from 1 to 24"),
        ([["[PAD]"]], [None], 3, "no item of tiny"),
    ],
)
def test_wrong_requests_are_named(recommender, histories, prompts, k, message):
    with pytest.raises(DPRError, match=message):
        recommender.recommend(histories, prompts, k)


@pytest.mark.parametrize("strength", [-1, -0.001, 11, math.nan, math.inf, "1", None, True])
def test_a_strength_out_of_range_is_named(recommender, strength):
    with pytest.raises(DPRError, match="strength must be a number from 0 to 10"):
        recommender.recommend([HISTORY], ["red"], strength=strength)


def test_strength_zero_is_the_backbone_one_as_trained_and_more_is_harder(recommender):
    asked = {"histories": [HISTORY], "prompts": ["something red please"], "k": 24}
    plain = recommender.recommend([HISTORY], [None], k=24)
    assert recommender.recommend(**asked, strength=0) == plain
    distance = [
        sum(s for token, s in recommender.recommend(**asked, strength=x)[0] if token in RED)
        - sum(s for token, s in recommender.recommend(**asked, strength=x)[0] if token in BLUE)
        for x in (0, 0.5, 1, 2)
    ]
    assert distance == sorted(distance) and distance[0] < distance[-1]
    model, interaction = recommender.model, interaction_of(recommender, HISTORY)
    with torch.no_grad():
        trained = model.steered_scores(interaction, *model.read(["something red please"]))[0]
    # Of the summands, which are larger than some of the sums.
    rounding = 1e-6 * float(trained[1:].abs().max())
    for token, score in recommender.recommend(**asked)[0]:
        expected = float(trained[recommender.catalogue.tokens.index(token)])
        assert score == pytest.approx(expected, abs=rounding)


def interaction_of(recommender, history):
    ids = [recommender.catalogue.tokens.index(token) for token in history]
    return recommender._histories.interaction([ids])


def test_no_prompt_gives_the_backbones_scores_bit_for_bit(recommender):
    interaction = interaction_of(recommender, HISTORY)
    with torch.no_grad():
        scores = recommender.model.backbone.model.full_sort_predict(interaction)[0].tolist()
    for prompts in ([None], [""], [["", None]], ["thank you very much"]):
        (answer,) = recommender.recommend([HISTORY], prompts, k=24)
        assert {
            token: scores[recommender.catalogue.tokens.index(token)] for token, _ in answer
        } == (dict(answer))


def test_unknown_items_are_skipped_with_a_count_or_an_error(recommender, caplog):
    (answer,) = recommender.answer([["i1", "i99", "i4", "i77"]], ["red"], k=3)
    assert answer.skipped == 2
    assert [answer.items] == recommender.recommend([["i1", "i4"]], ["red"], k=3)
    recommender.recommend([["i1", "i99"], ["i98", "i2"]], [None, None], k=3)
    assert "2 items of the histories are not in the catalogue" in caplog.text
    with pytest.raises(DPRError, match="history 0 holds 'i99', which is no item of tiny"):
        recommender.recommend([["i1", "i99"]], [None], strict=True)


def test_the_history_can_be_left_out(recommender):
    long = [f"i{n}" for n in range(20)]  # longer than what the model looks at
    (answer,) = recommender.recommend([long], ["red"], k=24, exclude_history=True)
    assert {token for token, _ in answer} == {f"i{n}" for n in range(20, 24)}


def test_values_can_be_asked_for_without_words(recommender):
    assert share(recommender.recommend([HISTORY], [None], k=5, include=["Red"])[0], RED) == 1.0
    assert share(recommender.recommend([HISTORY], ["red"], k=5, exclude=["red"])[0], RED) < 0.5
    for side in ("include", "exclude"):
        with pytest.raises(DPRError, match=f"{side} holds 'rde', .*; did you mean 'red'"):
            recommender.recommend([HISTORY], [None], **{side: ["rde"]})
        with pytest.raises(DPRError, match=f"{side} must be a list of attribute values"):
            recommender.recommend([HISTORY], [None], **{side: "red"})
    with pytest.raises(DPRError, match="'red' is both wanted and rejected"):
        recommender.recommend([HISTORY], [None], include=["red"], exclude=["red"])


def test_lists_may_be_arrays_and_a_text_is_none(recommender):
    asked = [["i1", "i4"]], [None]
    expected = recommender.recommend(*asked, include=["red", "blue"])
    assert recommender.recommend(np.array(asked[0]), [None], include=np.array(["red", "blue"])) == (
        expected
    )
    assert recommender.recommend(*asked, include=np.array([])) == recommender.recommend(*asked)
    for items, message in (("i1", "items must be a list"), ([["i1"]], "items holds .*'i1'")):
        with pytest.raises(DPRError, match=message):
            recommender.explain(["i1"], "red", items=items)
    with pytest.raises(DPRError, match="histories must be a list, not ndarray"):
        recommender.recommend(np.array("i1"), [None])


def test_item_vectors_are_the_callers_own(recommender):
    before = recommender.recommend([HISTORY], ["red"])
    vectors = recommender.item_vectors()
    vectors /= 1 + np.linalg.norm(vectors, axis=1, keepdims=True)
    assert recommender.recommend([HISTORY], ["red"]) == before


def test_values_that_differ_in_case_alone_are_told_apart():
    memory = PromptMemory(reading_model(["LEGO", "Lego", "Duplo"]), ["lego", "lego", "duplo"])
    for asked, expected in (("LEGO", 0), ("Lego", 1), ("duplo", 2), ("DUPLO", 2)):
        include, _ = memory.intents([None], include=[asked])
        assert include[0].nonzero().tolist() == [[expected]]


def reading_model(values, read=None):
    """Just what a `PromptMemory` asks of a model."""
    attributes = Attributes(values, ["kind"] * len(values), torch.zeros(1, len(values)).bool())
    return SimpleNamespace(attributes=attributes, device="cpu", read=read)


def test_the_name_of_a_value_goes_before_what_another_is_called():
    """As in amazon-beauty, where Concealers_&_Neutralizers is called concealer."""
    values = ["Concealers_&_Neutralizers", "Concealer"]
    memory = PromptMemory(reading_model(values), ["concealer", "stick"])
    for asked, expected in (("Concealer", [0, 1]), ("stick", [0, 1]), (values[0], [1, 0])):
        include, _ = memory.intents([None], include=[asked])
        assert include[0].tolist() == expected


def test_a_remembered_prompt_does_not_wait_for_one_that_is_being_read():
    begun, answered, asked = Event(), Event(), []

    def read(texts):
        asked.extend(texts)
        if "slow" in texts:
            begun.set()
            assert answered.wait(20)
        return torch.ones(len(texts), 1).bool(), torch.zeros(len(texts), 1).bool()

    memory = PromptMemory(reading_model(["red"], read), ["red"])
    memory.intents(["known"])
    with ThreadPoolExecutor(2) as pool:
        slow = [pool.submit(memory.intents, ["slow"]) for _ in range(2)]
        assert begun.wait(20)
        assert memory.intents(["known"])[0].tolist() == [[True]]
        answered.set()
        assert [found.result()[0].tolist() for found in slow] == [[[True]]] * 2
    assert asked == ["known", "slow"]  # each once, whoever asks


def test_a_like_item_is_only_looked_for_among_few(recommender, monkeypatch):
    with pytest.raises(DPRError, match="'i33', which is no item of tiny; did you mean"):
        recommender.recommend([["i33"]], [None])
    monkeypatch.setattr(histories_module, "HINTED", 23)
    with pytest.raises(DPRError, match=r"'i33', which is no item of tiny$"):
        recommender.recommend([["i33"]], [None])


def test_a_later_turn_overrules_an_earlier_one(recommender):
    def read(*turns):
        return {k: v for k, v in recommender.read(list(turns)).items() if k != "router"}

    assert read("something red please") == {"include": ["red"], "exclude": []}
    assert read("something red please", "nothing blue") == {"include": ["red"], "exclude": ["blue"]}
    assert read("something red please", "nothing red") == {"include": [], "exclude": ["red"]}
    turns = ["something blue please", None, "nothing blue"]
    assert recommender.recommend([HISTORY], [turns]) == recommender.recommend(
        [HISTORY], ["nothing blue"]
    )
    router = recommender.read("something red please")["router"]
    assert sum(router) == pytest.approx(1) and recommender.read(None)["router"] == []


def test_explanations_add_up_and_tell_the_ranks(recommender):
    (ranking,) = recommender.recommend([HISTORY], ["something red please"], k=24)
    (before,) = recommender.recommend([HISTORY], [None], k=24)
    explained = recommender.explain(HISTORY, "something red please", k=24)
    assert [row["item"] for row in explained] == [token for token, _ in ranking]
    places = {token: place for place, (token, _) in enumerate(before, start=1)}
    for place, (row, (_, score)) in enumerate(zip(explained, ranking, strict=True), start=1):
        assert row["score"] == pytest.approx(score, abs=1e-5)
        assert row["base"] + row["shift"] + row["semantic"] == pytest.approx(row["score"], abs=1e-5)
        assert (row["rank"], row["rank_before"]) == (place, places[row["item"]])
        assert row["title"] == f"Thing number {row['item'][1:]}"
        assert ("red" in row["values"]) == (row["item"] in RED)
    top = explained[0]
    # The log-likelihood of the wish: about 0 under a red thing, far below under others.
    others = [row["semantic"] for row in explained if row["item"] not in RED]
    assert top["semantic"] > 3 + max(others)
    assert recommender.explain(HISTORY, None, k=1)[0]["semantic"] == 0
    only = recommender.explain(HISTORY, "something red please", items=[top["item"], "i1"])
    assert [row["rank"] for row in only] == [1, [t for t, _ in ranking].index("i1") + 1]


def test_vectors_rank_as_the_recommender_does(recommender):
    histories, prompts = [HISTORY, HISTORY[:2]], ["red things", None]
    users, items = recommender.user_vectors(histories, prompts), recommender.item_vectors()
    assert isinstance(users, np.ndarray) and users.shape[1] == items.shape[1] == 16 + 8
    for scores, answer in zip(
        users @ items.T, recommender.recommend(histories, prompts, k=24), strict=True
    ):
        for token, score in answer:
            place = recommender.catalogue.tokens.index(token)
            assert scores[place] == pytest.approx(score, abs=1e-5)
    assert recommender.user_vectors([], []).shape == (0, 24)


def test_many_threads_get_what_one_gets(trained_run):
    recommender = recbole_dpr.load(trained_run["run_dir"])
    requests = [([HISTORY[: 1 + n % 4]], [f"something {c} please, number {n % 7}"])
                for n in range(60) for c in ("red", "blue")]  # fmt: skip
    expected = [recommender.recommend(*request) for request in requests]
    fresh = recbole_dpr.load(trained_run["run_dir"])
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda request: fresh.recommend(*request), requests)) == expected


def test_a_prompt_is_encoded_once(trained_run, monkeypatch):
    recommender = recbole_dpr.load(trained_run["run_dir"])
    seen = []
    encode = recommender.model.encoder.token_states
    monkeypatch.setattr(
        recommender.model.encoder, "token_states", lambda texts: seen.extend(texts) or encode(texts)
    )
    with ThreadPoolExecutor(8) as pool:
        list(
            pool.map(
                lambda _: recommender.recommend([HISTORY] * 3, ["red", " red ", "blue"]), range(9)
            )
        )
    assert sorted(seen) == ["blue", "red"]


def test_nothing_asked_nothing_answered(recommender):
    assert recommender.recommend([], []) == []


@pytest.mark.parametrize("model", ["DPR-SASRec", "DPR-GRU4Rec"])
def test_serving_scores_are_the_models_own(tiny_options, model):
    run = recbole_dpr.run_recbole_dpr(model, "tiny", config_dict=tiny_options)["run_dir"]
    recommender = recbole_dpr.load(run)
    histories = [HISTORY, HISTORY[:1], [f"i{n}" for n in range(20)], HISTORY[::-1]]
    prompts = ["something red please", None, "nothing blue", "red, but nothing green"]
    asked, _ = recommender._asked(histories, prompts, 1.0)
    interaction = recommender._histories.interaction(asked.ids)
    with torch.no_grad():
        expected = recommender.model.steered_scores(interaction, *asked.intents)
        own = recommender.model.backbone_scores(interaction)
    found = recommender._ranker._scores(asked)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(found[1], own[1]) and not torch.allclose(found[0], own[0])
    users = torch.from_numpy(recommender.user_vectors(histories, prompts))
    vectors = torch.from_numpy(recommender.item_vectors())
    torch.testing.assert_close(users @ vectors.T, expected, atol=1e-4, rtol=1e-4)
