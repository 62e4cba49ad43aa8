"""A run that was cut off or has ended goes on, bit for bit, or says why it cannot."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from recbole_dpr import run_recbole_dpr
from recbole_dpr.checkpoint import ITEM_TEXT
from recbole_dpr.errors import DPRError
from recbole_dpr.training.resume import RESUME_FILE, Progress
from recbole_dpr.training.trainer import DPRTrainer


class Killed(Exception):
    """Stands for the power going out."""


def killed_and_resumed(model, options, killed_after, monkeypatch, folder):
    """Run a model whole, and again with a cut after some epochs: both must end the same."""
    whole = run_recbole_dpr(model, "tiny", config_dict=options)
    save = DPRTrainer._save_resume
    epochs = 0

    def save_and_die(self, *args):
        nonlocal epochs
        if epochs == killed_after:
            raise Killed  # in the middle: this epoch's checkpoint is not written
        epochs += 1
        save(self, *args)

    monkeypatch.setattr(DPRTrainer, "_save_resume", save_and_die)
    options = options | {"checkpoint_dir": str(folder / "cut_off")}
    with pytest.raises(Killed):
        run_recbole_dpr(model, "tiny", config_dict=options)
    monkeypatch.undo()
    (run_dir,) = (folder / "cut_off").iterdir()
    resumed = run_recbole_dpr(resume=run_dir)
    assert resumed["run_dir"] == str(run_dir)
    ended, expected = (load_file(f"{run}/model.safetensors") for run in (run_dir, whole["run_dir"]))
    assert_close(ended, expected, rtol=0, atol=0)  # bit for bit, and the same names
    assert json.dumps(resumed["tasks"]) == json.dumps(whole["tasks"])
    assert "Options have changed" not in written(run_dir)
    assert ITEM_TEXT not in Progress.load(run_dir / RESUME_FILE).model  # is made anew
    return run_dir


def test_a_resume_that_does_not_fit_leaves_the_folder_as_it_is(options, data_path):
    run_dir = Path(run_recbole_dpr("DPR-SASRec", "tiny", config_dict=options)["run_dir"])
    kept = {
        path: path.read_bytes() for path in run_dir.iterdir() if path.suffix in (".yaml", ".json")
    }
    with pytest.raises(DPRError, match=r"is \["):
        run_recbole_dpr(resume=run_dir, command_line=["--hidden_size=24"])
    interactions = data_path / "tiny" / "tiny.inter"
    head, *rows = interactions.read_text().splitlines()
    # RecBole numbers items as they come.
    interactions.write_text("\n".join([head, *rows[::-1]]) + "\n")
    for begun in ({"resume": run_dir}, {"model": "DPR-SASRec", "dataset": "tiny"}):
        start = {} if "resume" in begun else options | {"checkpoint": str(run_dir)}
        with pytest.raises(
            DPRError, match=r"the items of tiny in .* are not those that .* was trained"
        ):
            run_recbole_dpr(**begun, config_dict=start)
    assert kept == {path: path.read_bytes() for path in kept}


def test_a_run_that_has_ended_goes_on_for_more_epochs(options):
    short = options | {"stage3_epochs": 1, "stage3_patience": 5}
    run_dir = Path(run_recbole_dpr("DPR-SASRec", "tiny", config_dict=short)["run_dir"])
    run_recbole_dpr(resume=run_dir, command_line=["--stage3_epochs=3"])
    history = json.loads((run_dir / "training.json").read_text())
    assert [row["epoch"] for row in history if row["stage"] == 3] == [0, 1, 2]


def test_a_stage_that_is_to_go_on_no_longer_leaves_its_best_weights(options):
    short = options | {"stage3_patience": 5}
    run_dir = Path(run_recbole_dpr("DPR-SASRec", "tiny", config_dict=short)["run_dir"])
    ended = Progress.load(run_dir / RESUME_FILE)
    assert ended.stage == 3 and ended.best
    result = run_recbole_dpr(resume=run_dir, command_line=["--stage3_epochs=0"])
    weights = load_file(run_dir / "model.safetensors")
    assert_close({name: weights[name] for name in ended.best}, ended.best, rtol=0, atol=0)
    assert result["best_valid_score"] == ended.best_valid_score


def test_an_average_may_begin_where_a_stage_goes_on(options):
    short = options | {"stage3_epochs": 1, "stage3_patience": 5, "stage3_averaging": 0.0}
    run_dir = Path(run_recbole_dpr("DPR-SASRec", "tiny", config_dict=short)["run_dir"])
    assert not Progress.load(run_dir / RESUME_FILE).average
    more = ["--stage3_epochs=2", "--stage3_averaging=0.9"]
    run_recbole_dpr(resume=run_dir, command_line=more)
    ended = Progress.load(run_dir / RESUME_FILE)
    assert ended.epoch == 1 and ended.average
    assert any(not torch.equal(w, ended.model[name]) for name, w in ended.average.items())


def test_a_resumed_run_counts_the_seconds_of_all_its_parts(options):
    run_dir = Path(run_recbole_dpr("DPR-SASRec", "tiny", config_dict=options)["run_dir"])
    ended = Progress.load(run_dir / RESUME_FILE)
    # Older versions kept the item texts, too.
    model = ended.model | {ITEM_TEXT: load_file(run_dir / "model.safetensors")[ITEM_TEXT]}
    seconds = ended.seconds | {"stage1": 1000.0}
    replace(ended, model=model, seconds=seconds).save(run_dir / RESUME_FILE)
    run_recbole_dpr(resume=run_dir)
    seconds = json.loads((run_dir / "metrics.json").read_text())["seconds"]
    assert seconds["stage1"] == 1000 < seconds["total"]


def written(run_dir):
    (log,) = Path(run_dir).glob("*.log")
    return log.read_text(encoding="utf-8")


def test_a_run_that_goes_on_with_other_options_says_so(options):
    run_dir = run_recbole_dpr("DPR-SASRec", "tiny", config_dict=options)["run_dir"]
    run_recbole_dpr(resume=run_dir, command_line=["--exclude_history=True"])
    assert "Options have changed since the run began" in written(run_dir)
    assert written(run_dir).count("exclude_history from False to True\n") == 1


@pytest.mark.parametrize("killed_after", [0, 2, 3, 5, 6, 7])
def test_a_killed_run_resumes_to_the_same_figures(options, monkeypatch, killed_after, tmp_path):
    run_dir = killed_and_resumed("DPR-GRU4Rec", options, killed_after, monkeypatch, tmp_path)
    history = json.loads((run_dir / "training.json").read_text())
    assert [(row["stage"], row["epoch"]) for row in history] == [
        (1, 0),
        (1, 1),
        (1, 2),
        (2, 0),
        (2, 1),
        (3, 0),
        (3, 1),
        (3, 2),
    ]


@pytest.mark.parametrize(
    ("model", "killed_after"), [("DPR-GRU4Rec", 0), ("DPR-GRU4Rec", 1), ("DPR-Caser", 1)]
)
def test_a_killed_joint_run_resumes_to_the_same_figures(
    options, monkeypatch, model, killed_after, tmp_path
):
    options |= {"joint": True, "train_batch_size": 64, "stage3_prefixes": 100}
    run_dir = killed_and_resumed(model, options, killed_after, monkeypatch, tmp_path)
    history = json.loads((run_dir / "training.json").read_text())
    assert [(row["stage"], row["epoch"]) for row in history] == [(1, 0), (1, 1), (1, 2)]


@pytest.mark.parametrize(
    ("model", "killed_after", "more"),
    [
        ("DPR-BERT4Rec", 2, {}),  # masks at random
        ("DPR-TransRec", 1, {"stage1_prefixes": 100}),  # draws negatives, and prefixes
        (
            "DPR-S3Rec",
            1,
            {"pretrain_epochs": 2, "item_attribute": "colour"},
        ),  # in a stage of its own
    ],
)
def test_a_killed_run_on_prefixes_resumes_to_the_same_figures(
    options, monkeypatch, model, killed_after, more, tmp_path
):
    options |= {**more, "stage3_prefixes": 100, "train_batch_size": 64}
    run_dir = killed_and_resumed(model, options, killed_after, monkeypatch, tmp_path)
    history = json.loads((run_dir / "training.json").read_text())
    assert [row["steps"] for row in history if row["stage"] == 0] == 2 * [33] * bool(
        more.get("pretrain_epochs")
    )
