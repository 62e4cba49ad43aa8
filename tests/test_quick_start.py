"""The whole path on data whose right answer is known, and the contract of what it leaves behind."""

import json
import logging
from pathlib import Path

import pytest
import yaml

from recbole_dpr import objective_function, run_recbole_dpr
from recbole_dpr.errors import DPRError
from recbole_dpr.quick_start import evaluate
from recbole_dpr.run_folder import new_run_dir
from recbole_dpr.training.trainer import DPRTrainer

SYSTEMS = {"DPR", "backbone", "filter", "calibrated_filter", "post_filter"}


@pytest.fixture(scope="module")
def metrics(trained_run):
    return json.loads((Path(trained_run["run_dir"]) / "metrics.json").read_text())


def test_prompts_are_followed_where_the_answer_is_known(metrics):
    # Half of the red things are green as well: not even a filter finds ten red ones that are not.
    for name in ("positive", "negative", "compound"):
        seen, unseen = (metrics[part][name] for part in ("tasks_seen_phrases", "tasks"))
        assert seen["DPR"]["satisfied@10"] > 0.9 * seen["filter"]["satisfied@10"]
        assert unseen["DPR"]["satisfied@10"] > 1.4 * unseen["backbone"]["satisfied@10"]
        assert unseen["DPR"]["ndcg@10"] > 1.4 * unseen["backbone"]["ndcg@10"]
    negative = metrics["tasks_seen_phrases"]["negative"]
    assert negative["DPR"]["violation@10"] < negative["backbone"]["violation@10"] / 5


def test_metrics_json_keeps_the_contract(trained_run, metrics):
    assert (metrics["model"], metrics["dataset"], metrics["seed"]) == ("DPR-SASRec", "tiny", 2020)
    for part in ("tasks", "tasks_seen_phrases"):
        assert list(metrics[part]) == ["standard", "positive", "negative", "compound"]
        for name in ("positive", "negative", "compound"):
            assert set(metrics[part][name]) == SYSTEMS
            for figures in metrics[part][name].values():
                assert {"ndcg@10", "recall@10", "satisfied@10", "violation@10", "users"} <= set(
                    figures
                )
    assert set(metrics["seconds"]) == {"stage1", "stage2", "stage3", "evaluate", "total"}
    assert metrics["tasks"] == trained_run["tasks"]
    assert metrics["tasks"]["standard"]["DPR"] == metrics["tasks"]["standard"]["backbone"]


def test_an_interrupted_run_says_how_to_go_on(tiny_options, monkeypatch, caplog):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(DPRTrainer, "fit", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_recbole_dpr("SASRec", "tiny", config_dict=tiny_options)
    (folder,) = Path(tiny_options["checkpoint_dir"]).iterdir()
    assert f"--resume={folder}" in caplog.text


def test_the_run_folder_is_complete_and_plain(trained_run):
    run = Path(trained_run["run_dir"])
    assert run.name.startswith("DPR-SASRec-tiny-")
    names = {path.name for path in run.iterdir()}
    assert {"config.yaml", "items.json", "metrics.json", "model.safetensors"} <= names
    assert {"report.md", "examples.md", "training.json", "resume.safetensors"} <= names
    assert {p.name for p in (run / "plots").iterdir()} == {
        "systems.png",
        "training.png",
        "router.png",
    }
    assert yaml.safe_load((run / "config.yaml").read_text())["model"] == "DPR-SASRec"
    assert not [path for path in run.rglob("*") if path.suffix in (".pth", ".pkl", ".pt")]


def test_recboles_four_keys(trained_run, metrics):
    assert trained_run["valid_score_bigger"] is True
    assert trained_run["best_valid_score"] == trained_run["best_valid_result"]["ndcg@10"]
    assert trained_run["test_result"] == metrics["tasks"]["standard"]["backbone"]


def test_each_epoch_is_one_line_of_the_log(tiny_options):
    result = run_recbole_dpr("DPR-GRU4Rec", "tiny", config_dict=tiny_options | {"state": "info"})
    (log,) = Path(result["run_dir"]).glob("*.log")
    lines = log.read_text().splitlines()
    for stage in (1, 2, 3):
        (line,) = [line for line in lines if f"stage {stage} epoch 0" in line]
        assert "loss" in line and "ndcg@10" in line and "\033" not in line


def test_what_is_said_before_there_is_a_folder_stands_in_its_log(tiny_options, caplog):
    result = run_recbole_dpr("SASRec", "tiny", config_dict=tiny_options | {"eval_step": 5})
    (log,) = Path(result["run_dir"]).glob("*.log")
    first = log.read_text().splitlines()[0]
    assert first.endswith("eval_step=5 does nothing: every epoch is validated")
    assert "WARNING" in first


def test_a_runs_log_ends_with_it(tiny_options):
    root = logging.getLogger()
    before = root.level, list(root.handlers)
    run_dir = Path(run_recbole_dpr("SASRec", "tiny", config_dict=tiny_options)["run_dir"])
    assert (root.level, root.handlers) == before
    (log,) = run_dir.glob("*.log")
    written = log.read_text()
    evaluate(run_dir)
    root.warning("of somebody else")
    assert log.read_text() == written


def test_what_a_failed_start_has_said_is_not_lost(tiny_options, monkeypatch, capsys):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    level = logging.getLogger().level
    options = tiny_options | {"eval_step": 5, "prompt_fields": ["colour", "shape"]}
    with pytest.raises(DPRError, match="shape"):
        run_recbole_dpr("DPR-SASRec", "tiny", config_dict=options)
    assert "eval_step=5 does nothing" in capsys.readouterr().err
    assert logging.getLogger().level == level


def test_the_objective_function_serves_recboles_hyper_tuning(tiny_options):
    result = objective_function(tiny_options | {"model": "DPR-SASRec", "dataset": "tiny"})
    assert result["model"] == "DPR-SASRec" and result["valid_score_bigger"] is True
    assert set(result["test_result"]) >= {"standard_ndcg@10", "negative_violation@10"}


def test_runs_that_begin_at_once_have_folders_of_their_own(tiny_config):
    config = tiny_config("DPR-SASRec")
    folders = {new_run_dir(config) for _ in range(3)}
    assert len(folders) == 3 and all(folder.is_dir() for folder in folders)


def test_a_run_that_goes_on_takes_no_other_model_or_data():
    for given in ({"model": "SASRec"}, {"dataset": "tiny"}, {"config_file_list": ["a.yaml"]}):
        with pytest.raises(DPRError, match="takes model, data set and options from its folder"):
            run_recbole_dpr(**given, resume="saved/x")


def test_a_new_run_does_not_take_resume_for_an_option(tiny_options):
    with pytest.raises(DPRError, match="use run_recbole_dpr"):
        run_recbole_dpr("DPR-SASRec", "tiny", config_dict=tiny_options | {"resume": "somewhere"})


def test_a_metric_that_is_asked_for_is_reported(tiny_options):
    options = tiny_options | {"metrics": ["NDCG", "MAP"], "valid_metric": "MAP@10"}
    result = run_recbole_dpr("SASRec", "tiny", config_dict=options)
    assert result["test_result"]["map@10"] == pytest.approx(result["test_result"]["mrr@10"])


def test_a_loss_that_windows_do_not_have_is_refused(tiny_options):
    options = tiny_options | {
        "loss_type": "BPR",
        "train_neg_sample_args": {"distribution": "uniform", "sample_num": 1},
    }
    with pytest.raises(DPRError, match="loss_type=BPR is not for windows"):
        run_recbole_dpr("SASRec", "tiny", config_dict=options)
