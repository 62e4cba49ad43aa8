"""Option `compare` from the config to metrics.json, on the run whose answers are known."""

import json
from pathlib import Path

import pytest

from recbole_dpr import quick_start
from recbole_dpr.checks import compared_system
from recbole_dpr.errors import DPRError
from recbole_dpr.evaluation import measure
from recbole_dpr.evaluation.report import write_report
from recbole_dpr.evaluation.text_systems import WEIGHTS

ASKED = ["semantic", "additive", "rerank_5", "post_filter_3", "rerank_12"]
ALWAYS = ["DPR", "backbone", "filter", "calibrated_filter", "post_filter"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("additive", ("additive", 0)),
        ("rerank_20", ("rerank", 20)),
        ("post_filter_500", ("post_filter", 500)),
    ],
)
def test_a_name_says_what_it_is_and_how_deep(name, expected):
    assert compared_system(name) == expected


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("aditive", "compare has no system 'aditive'; did you mean 'additive'?"),
        ("rerank", "did you mean 'rerank_20'?"),
        ("post_filter_0", "compare has no system 'post_filter_0'"),
        ("rerank_-5", "did you mean"),
        ("semantic_20", "did you mean 'semantic'?"),
        ("filter", "such as additive, semantic"),
        (7, "compare has no system 7"),
    ],
)
def test_an_unknown_name_is_refused_before_anything_runs(tiny_config, name, says):
    with pytest.raises(DPRError) as raised:
        tiny_config(compare=["additive", name])
    assert says in str(raised.value)


def test_one_name_need_not_be_a_list_and_none_is_the_default(tiny_config):
    assert tiny_config()["compare"] == []
    assert tiny_config(compare="semantic")["compare"] == ["semantic"]


def test_a_wrong_rerank_model_is_refused_before_the_training(tiny_options, tmp_path):
    (tmp_path / "model").mkdir()
    options = {**tiny_options, "compare": ["rerank_5"], "rerank_model": str(tmp_path / "model")}
    with pytest.raises(DPRError, match=r"rerank_model .* is a folder without config\.json"):
        quick_start.run_recbole_dpr("DPR-SASRec", "tiny", config_dict=options)
    assert not (tmp_path / "saved").exists()


@pytest.fixture(scope="module")
def metrics(trained_run):
    return quick_start.evaluate(trained_run["run_dir"], {"compare": ASKED, "delta_auc_users": 8})


def test_the_systems_asked_for_join_the_others(metrics, trained_run):
    for part in ("tasks", "tasks_seen_phrases"):
        assert list(metrics[part]["standard"]) == ["DPR", "backbone"]
        for task in ("positive", "negative", "compound"):
            assert list(metrics[part][task]) == [*ALWAYS, *ASKED]
            # Nothing else changes by their presence.
            plain = json.loads((Path(trained_run["run_dir"]) / "metrics.json").read_text())[part]
            assert {name: metrics[part][task][name] for name in ALWAYS} == plain[task]
    assert set(metrics["system_seconds"]) == {*ALWAYS, *ASKED}
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics


def test_each_system_does_what_it_is_named_for(metrics):
    positive, negative = metrics["tasks"]["positive"], metrics["tasks"]["negative"]
    # The texts of the items name their colours, and an embedding knows colours by name ...
    assert positive["semantic"]["satisfied@10"] > positive["backbone"]["satisfied@10"] + 0.2
    # ... but takes "no red" for red.
    assert negative["semantic"]["violation@10"] > negative["backbone"]["violation@10"] + 0.2
    # Only what lies in the top k can move.
    assert positive["rerank_5"]["recall@10"] == positive["backbone"]["recall@10"]
    assert positive["rerank_12"]["satisfied@10"] > positive["backbone"]["satisfied@10"]
    assert positive["post_filter_3"]["satisfied@10"] < positive["post_filter"]["satisfied@10"]
    assert positive["additive"]["satisfied@10"] > positive["backbone"]["satisfied@10"]
    # What is added for "no red" is tuned apart from what is added for "red".
    assert negative["additive"]["violation@10"] < negative["semantic"]["violation@10"]


def test_the_weight_was_tuned_and_is_written_down(metrics):
    tuned = metrics["tuned"]["additive"]
    assert list(tuned) == ["positive", "negative", "compound"]
    assert set(tuned.values()) <= set(WEIGHTS)


def test_dpr_is_tested_against_every_other_system(metrics):
    for task in ("positive", "negative", "compound"):
        tests = metrics["significance"][task]
        assert list(tests) == [*ALWAYS[1:], *ASKED]
        for name, test in tests.items():
            figures = metrics["tasks"][task]
            gap = figures["DPR"]["ndcg@10"] - figures[name]["ndcg@10"]
            assert test["difference"] == pytest.approx(gap, abs=1e-6)
            assert 0 <= test["p"] <= test["p_holm"] <= 1
    assert metrics["significance"]["positive"]["backbone"]["p_holm"] < 0.01


def test_a_model_that_reads_pairs_is_not_asked_for_the_delta_auc(trained_run, monkeypatch):
    monkeypatch.setattr(measure, "rerank_scorer", lambda *_: lambda _, items: -items.float())
    asked = {"compare": ["rerank_5", "semantic"], "delta_auc_users": 8, "rerank_model": "a/model"}
    metrics = quick_start.evaluate(trained_run["run_dir"], asked)
    assert "rerank_5" in metrics["tasks"]["positive"]
    assert metrics["delta_auc"]["increase"].keys() >= {"DPR", "semantic"}
    assert "rerank_5" not in metrics["delta_auc"]["increase"]


def test_the_delta_auc_has_the_direction_of_the_prompt(metrics):
    measured = metrics["delta_auc"]
    assert measured["users"] == 8
    for direction, sign in (("increase", 1), ("decrease", -1)):
        assert list(measured[direction]) == [*ALWAYS, *ASKED]
        for name in ("DPR", "filter"):
            assert sign * measured[direction][name]["mean"] > 0.2
        assert measured[direction]["backbone"]["mean"] == 0
        assert set(measured[direction]["DPR"]["values"]) == {"red", "blue", "green"}


def test_the_report_shows_what_was_asked_for(metrics, tmp_path):
    text = write_report(tmp_path, metrics, command="run").read_text(encoding="utf-8")
    assert "- `rerank` sees the prompt's text: the top of the backbone's ranking" in text
    assert "| positive | rerank_5 | the prompt's text |" in text
    difference = metrics["significance"]["positive"]["semantic"]["difference"]
    assert f"| positive | semantic | {difference:+.4f} |" in text
    assert "when 8 users ask for the value" in text
    up, down = (metrics["delta_auc"][side]["DPR"]["mean"] for side in ("increase", "decrease"))
    assert f"| DPR | {up:+.3f} | {down:+.3f} |" in text


def test_a_report_without_them_does_not_speak_of_them(trained_run):
    text = (Path(trained_run["run_dir"]) / "report.md").read_text(encoding="utf-8")
    assert "rerank" not in text
    assert "Delta AUC" not in text
    assert "## More than chance?" in text


def test_a_plain_model_has_them_too(tiny_options):
    options = {**tiny_options, "compare": ["additive", "rerank_5"], "delta_auc_users": 3}
    result = quick_start.run_recbole_dpr("GRU4Rec", "tiny", config_dict=options)
    assert list(result["tasks"]["positive"]) == [*ALWAYS[1:], "additive", "rerank_5"]
    metrics = json.loads((Path(result["run_dir"]) / "metrics.json").read_text())
    assert metrics["significance"] == {}
    assert metrics["delta_auc"]["increase"]["filter"]["mean"] > 0
