"""A run folder answers by itself, also for people it has never seen."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import recbole_dpr
from recbole_dpr.errors import DPRError

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
        ([["i1", "i99"]], [None], 3, "history 0 holds 'i99', which is no item of tiny"),
        ([["i1"], []], [None, None], 3, "history 1 must be a list of at least one item"),
        (["i1"], [None], 3, "history 0 must be a list"),
        ([["i1"]], [], 3, "1 histories came with 0 prompts"),
        ([["i1"]], [7], 3, "prompt 0 must be a text or None, not int"),
        ([["i1"]], [None], 0, "k must be a whole number from 1 to 24"),
        ([["i1"]], [None], 25, "k must be a whole number from 1 to 24"),
        ([["[PAD]"]], [None], 3, "no item of tiny"),
    ],
)
def test_wrong_requests_are_named(recommender, histories, prompts, k, message):
    with pytest.raises(DPRError, match=message):
        recommender.recommend(histories, prompts, k)


def test_nothing_asked_nothing_answered(recommender):
    assert recommender.recommend([], []) == []


def copy_of(run, tmp_path):
    return Path(shutil.copytree(run["run_dir"], tmp_path / "run"))


def test_the_folder_alone_is_enough(trained_run, recommender, tmp_path):
    run = copy_of(trained_run, tmp_path)
    for name in run.iterdir():
        if name.name not in ("config.yaml", "items.json", "model.safetensors"):
            shutil.rmtree(name) if name.is_dir() else name.unlink()
    asked = ([HISTORY], ["no blue"])
    assert recbole_dpr.load(run).recommend(*asked) == recommender.recommend(*asked)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("name", ["config.yaml", "items.json", "model.safetensors"])
def test_a_cut_off_or_missing_file_is_named(trained_run, tmp_path, name):
    run = copy_of(trained_run, tmp_path)
    cut(run / name)
    with pytest.raises(DPRError, match=name):
        recbole_dpr.load(run)
    (run / name).unlink()
    with pytest.raises(DPRError, match=name):
        recbole_dpr.load(run)


def test_a_catalogue_of_another_run_is_noticed(trained_run, tmp_path):
    run = copy_of(trained_run, tmp_path)
    content = json.loads((run / "items.json").read_text())
    content["items"].pop()
    (run / "items.json").write_text(json.dumps(content))
    with pytest.raises(DPRError, match=r"model\.safetensors: weight '.*' is \["):
        recbole_dpr.load(run)


def test_no_such_folder():
    with pytest.raises(DPRError, match="nowhere is not a run folder"):
        recbole_dpr.load("nowhere")


def test_a_plain_model_takes_no_prompt(tiny_options):
    run = recbole_dpr.run_recbole_dpr("SASRec", "tiny", config_dict=tiny_options)["run_dir"]
    recommender = recbole_dpr.load(run)
    assert len(recommender.recommend([HISTORY], [None], k=3)[0]) == 3
    with pytest.raises(DPRError, match="SASRec takes no prompts: train DPR-SASRec"):
        recommender.recommend([HISTORY], ["red"])
