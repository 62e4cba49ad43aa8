"""Three stages: repeatable, and clear about what went wrong."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from recbole.model.sequential_recommender import SASRec
from safetensors.torch import load_file
from torch.utils.tensorboard import SummaryWriter

from recbole_dpr import checkpoint, run_recbole_dpr
from recbole_dpr.config import DPRConfig
from recbole_dpr.errors import DPRError
from recbole_dpr.model.dpr import DPR
from recbole_dpr.model.semantic import NEVER
from recbole_dpr.training.averaging import RunningAverage, put_weights, snapshot
from recbole_dpr.training.setup import prepare, prompted_training
from recbole_dpr.training.stages import Stage, alignment_stage, spread
from recbole_dpr.training.trainer import DPRTrainer


def test_a_learned_reader_has_a_learning_rate_of_its_own(tiny_config, tmp_path):
    options = {"reader": "trained", "reader_prompts": 40, "reader_learning_rate": 0.004}
    config = tiny_config("DPR-SASRec", stage2_learning_rate=0.02, warmup_steps=4, **options)
    data, phrasebook, model = prepare(config)
    training = prompted_training(config, data, phrasebook)
    trainer = DPRTrainer(config, model, tmp_path, training)
    stage = alignment_stage(config, model, training, data.train)
    trainer._begin(stage)
    stage.loader.set_epoch(0)
    trainer._loss(next(iter(stage.loader)))
    semantic, reader = trainer.optimizer.param_groups
    assert (semantic["lr"], reader["lr"]) == (pytest.approx(0.02 / 4), pytest.approx(0.001))
    assert {id(w) for w in reader["params"]} == {id(w) for w in model.reader.parameters()}
    assert len(stage.parameters) == len(semantic["params"]) + len(reader["params"])


def weights(run_dir):
    return load_file(f"{run_dir}/model.safetensors")


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def tasks(result):
    return json.dumps(result["tasks"])


def test_same_seed_same_result_and_another_seed_another(options):
    runs = [
        run_recbole_dpr("DPR-SASRec", "tiny", config_dict=options | {"seed": seed})
        for seed in (1, 1, 2)
    ]
    first, second, third = (weights(run["run_dir"]) for run in runs)
    assert equal(first, second) and tasks(runs[0]) == tasks(runs[1])
    assert not equal(first, third)
    assert len({run["run_dir"] for run in runs}) == 3


def test_a_folder_that_cannot_be_made_is_named(options, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DPRError, match=r"cannot be made .*: set checkpoint_dir"):
        run_recbole_dpr(
            "DPR-SASRec",
            "tiny",
            config_dict=options | {"checkpoint_dir": str(tmp_path / "file" / "x")},
        )


@pytest.mark.parametrize("learns", [True, False])
def test_stage_3_leaves_the_semantic_space_alone_when_told_so(options, learns):
    aligned = run_recbole_dpr("DPR-SASRec", "tiny", config_dict=options | {"stage3_epochs": 0})
    begun = options | {
        "checkpoint": aligned["run_dir"],
        "stage1_epochs": 0,
        "stage2_epochs": 0,
        "stage3_semantic": learns,
    }
    steered = run_recbole_dpr("DPR-SASRec", "tiny", config_dict=begun)
    before, after = weights(aligned["run_dir"]), weights(steered["run_dir"])
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert any(name.startswith("experts.") for name in moved)
    assert any(name.startswith("semantic.") for name in moved) == learns


def test_stage_3_does_not_keep_a_semantic_space_that_nothing_has_aligned(options):
    without = options | {"stage2_epochs": 0, "stage3_semantic": False}
    begun = run_recbole_dpr("DPR-SASRec", "tiny", config_dict=without | {"stage3_epochs": 0})
    trained = run_recbole_dpr("DPR-SASRec", "tiny", config_dict=without)
    before, after = weights(begun["run_dir"]), weights(trained["run_dir"])
    assert any(not torch.equal(before[k], after[k]) for k in before if k.startswith("semantic."))


@pytest.mark.parametrize(("scale", "lowest"), [(0.1, True), (5.0, False)])
def test_impossible_lies_below_the_spread_of_the_backbone(options, scale, lowest):
    config = DPRConfig("DPR-SASRec", "tiny", config_dict=options)
    data, phrasebook, model = prepare(config)
    with torch.no_grad():
        model.backbone.model.item_embedding.weight.normal_(std=scale)
    model.freeze_backbone()
    alignment_stage(config, model, prompted_training(config, data, phrasebook), data.train)
    above = spread(config, model, data.train)
    assert model.semantic.never == (NEVER if lowest else pytest.approx(-above))
    assert (above < -NEVER) == lowest


def test_the_spread_is_that_of_what_can_be_recommended(options):
    config = DPRConfig("DPR-SASRec", "tiny", config_dict=options | {"exclude_history": True})
    data, _, model = prepare(config)
    hide = model.without_history

    def most(scores, interaction):  # as if histories held most of the catalogue
        scores = hide(scores, interaction).clone()
        scores[:, 4:] = -torch.inf
        return scores

    model.without_history = most
    assert 0 <= spread(config, model, data.train) < 100


def test_no_gradient_outlives_its_stage(options, monkeypatch):
    begin = DPRTrainer._begin
    left = []

    def watched(self, stage):
        first = begin(self, stage)
        left.extend(weight for weight in self.model.parameters() if weight.grad is not None)
        return first

    monkeypatch.setattr(DPRTrainer, "_begin", watched)
    run_recbole_dpr("DPR-SASRec", "tiny", config_dict=options)
    assert not left


def test_the_average_of_the_weights_counts_each_step_once(options, monkeypatch):
    update = RunningAverage.update
    counted = []

    def watched(self, step):
        counted.append(step)
        update(self, step)

    monkeypatch.setattr(RunningAverage, "update", watched)
    result = run_recbole_dpr("SASRec", "tiny", config_dict=options)
    history = json.loads(Path(result["run_dir"], "training.json").read_text())
    assert len(history) > 1
    assert counted == list(range(1, 1 + sum(row["steps"] for row in history)))


def test_a_joint_run_stops_early(options):
    longer = options | {"joint": True, "stage1_epochs": 30, "stage1_patience": 0}
    result = run_recbole_dpr("DPR-SASRec", "tiny", config_dict=longer)
    history = json.loads(Path(result["run_dir"], "training.json").read_text())
    scores = [row["valid"]["ndcg@10"] for row in history]
    assert len(scores) < 30 and scores[-1] <= max(scores) == result["best_valid_score"]


def test_stage_3_does_not_end_below_stage_2(options):
    ruin = options | {
        "state": "info",
        "stage2_epochs": 3,
        "stage3_learning_rate": 30.0,
        "stage3_averaging": 0.0,
    }
    runs = {
        epochs: run_recbole_dpr("DPR-SASRec", "tiny", config_dict=ruin | {"stage3_epochs": epochs})
        for epochs in (0, 2)
    }
    history = json.loads(Path(runs[2]["run_dir"], "training.json").read_text())
    scores = {n: [r["valid"]["ndcg@10"] for r in history if r["stage"] == n] for n in (2, 3)}
    assert max(scores[3]) < max(scores[2]) == runs[2]["best_valid_score"]
    assert {row["stage"] for row in history if row["best"]} == {1, 2}
    said = "stage 3 (promptable fine-tuning) found nothing better than what it began with"
    run_dir = Path(runs[2]["run_dir"])
    assert said in (run_dir / f"{run_dir.name}.log").read_text()
    assert equal(*(weights(run["run_dir"]) for run in runs.values()))


@pytest.mark.parametrize("name", ["SASRec", "S3Rec"])  # S3Rec counts its mask token as an item
def test_the_backbone_is_the_same_after_all_three_stages(options, name):
    options |= {"item_attribute": "colour"} if name == "S3Rec" else {}
    plain = run_recbole_dpr(name, "tiny", config_dict=options)
    steered = run_recbole_dpr(f"DPR-{name}", "tiny", config_dict=options)
    assert steered["tasks"]["standard"]["DPR"] == steered["tasks"]["standard"]["backbone"]
    again = options | {"backbone_checkpoint": plain["run_dir"], "stage1_epochs": 0}
    started = run_recbole_dpr(f"DPR-{name}", "tiny", config_dict=again)
    assert equal(checkpoint.backbone_weights(started["run_dir"]), weights(plain["run_dir"]))
    assert started["tasks"]["standard"]["backbone"] == plain["tasks"]["standard"]["backbone"]


def test_skipped_stages_leave_the_weights_of_the_checkpoint(options):
    first = run_recbole_dpr("DPR-SASRec", "tiny", config_dict=options)
    nothing = {f"stage{n}_epochs": 0 for n in (1, 2, 3)}
    again = run_recbole_dpr(
        "DPR-SASRec", "tiny", config_dict=options | nothing | {"checkpoint": first["run_dir"]}
    )
    assert equal(weights(first["run_dir"]), weights(again["run_dir"]))
    assert tasks(first) == tasks(again)


def test_a_checkpoint_of_another_size_is_refused_by_name(options):
    first = run_recbole_dpr("SASRec", "tiny", config_dict=options)
    other = options | {"backbone_checkpoint": first["run_dir"], "hidden_size": 8, "inner_size": 8}
    with pytest.raises(DPRError, match=r"weight '.*' is \[.*\], this model's is \[.*\]"):
        run_recbole_dpr("DPR-SASRec", "tiny", config_dict=other)


@pytest.mark.parametrize(("stage", "loss"), [(1, "calculate_loss"), (3, "prompted_loss")])
def test_a_nan_loss_names_stage_epoch_and_step(options, monkeypatch, stage, loss):
    closed = []
    monkeypatch.setattr(SummaryWriter, "close", lambda self: closed.append(self))
    monkeypatch.setattr(DPR, loss, lambda self, *batch: torch.tensor(float("nan")))
    with pytest.raises(
        DPRError, match=rf"NaN in stage {stage} \(.*\), epoch 0, step 1: lower --st"
    ):
        run_recbole_dpr("DPR-SASRec", "tiny", config_dict=options)
    assert len(closed) == 1  # tensorboard's thread has ended


def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    checkpoint.save_tensors(path, {"a": torch.ones(3)}, {"n": 1})

    def no_space(tensors, file, metadata):
        file.write_bytes(b"half a fi")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", no_space)
    with pytest.raises(DPRError, match=r"cannot write .*No space left.*go on with --resume="):
        checkpoint.save_tensors(path, {"a": torch.zeros(3)}, {"n": 2})
    tensors, about = checkpoint.load_tensors(path)
    assert tensors["a"].tolist() == [1, 1, 1] and about == {"n": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.safetensors"]


class OwnPretraining(SASRec):
    """Has a stage 0 of its own, and keeps what it has drawn of positions."""

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.position_embedding.requires_grad_(False)

    def pretrain(self):
        """S3Rec's sign that there is something to do before stage 1."""


@pytest.mark.parametrize("pretrain_epochs", [0, 1])
def test_what_a_model_has_frozen_stays_so(options, pretrain_epochs):
    options = options | {"pretrain_epochs": pretrain_epochs, "stage2_epochs": 0, "stage3_epochs": 0}
    kept = []
    for epochs in (1, 0):
        given = options | {"stage1_epochs": epochs}
        run_dir = Path(run_recbole_dpr(OwnPretraining, "tiny", config_dict=given)["run_dir"])
        weights = load_file(run_dir / "model.safetensors")
        kept.append(weights["backbone.model.position_embedding.weight"])
    assert torch.equal(*kept)


def test_a_plain_model_that_is_not_causal_trains_on_prefixes(options):
    result = run_recbole_dpr("NPE", "tiny", config_dict=options | {"train_batch_size": 64})
    # Nothing was asked in its validation, so there is nothing to satisfy.
    assert {"ndcg@10", "recall@10"} <= set(result["best_valid_result"])
    assert not any(name.startswith("satisfied") for name in result["best_valid_result"])
    assert set(result["tasks"]["positive"]) == {
        "backbone",
        "filter",
        "calibrated_filter",
        "post_filter",
    }


@pytest.mark.parametrize("kept", [4, 5])  # interactions of each user
def test_a_model_that_masks_trains_on_short_histories_or_says_why_not(options, data_path, kept):
    """RecBole's loss is 0 / 0 where nothing is masked that counts."""
    file = data_path / "tiny" / "tiny.inter"
    head, *rows = file.read_text().splitlines()
    rows = [row for row in rows if float(row.split("\t")[2]) <= kept]
    file.write_text("\n".join([head, *rows]) + "\n")
    options |= {"epochs": 1}
    if kept == 5:
        run_recbole_dpr("BERT4Rec", "tiny", config_dict=options)
        return
    with pytest.raises(DPRError, match="too short to be masked: BERT4Rec needs users with five"):
        run_recbole_dpr("BERT4Rec", "tiny", config_dict=options)


def test_a_trained_reader_learns_to_read(options):
    longer = {"reader": "trained", "reader_prompts": 1000, "stage2_epochs": 8}
    result = run_recbole_dpr("DPR-SASRec", "tiny", config_dict=options | longer)
    history = json.loads(Path(result["run_dir"], "training.json").read_text())
    losses = [row["loss"] for row in history if row["stage"] == 2]
    assert losses[-1] < losses[0] / 2


def test_the_best_weights_hold_what_batch_normalisation_had_seen():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    model(torch.randn(8, 2))
    best = snapshot(model)
    kept = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model(torch.randn(8, 2) + 5)
    assert not equal(model.state_dict(), kept)
    put_weights(model, best)
    assert equal(dict(model.state_dict()), kept)


def test_a_task_that_nobody_can_be_asked_is_left_out(options, data_path):
    """No item lacks the only value, so that nothing can be rejected and no value be raised."""
    file = data_path / "tiny" / "tiny.item"
    head, *lines = file.read_text().splitlines()
    rows = ["\t".join([*line.split("\t")[:2], "red"]) for line in lines]
    file.write_text("\n".join([head, *rows]) + "\n")
    result = run_recbole_dpr("DPR-SASRec", "tiny", config_dict=options | {"delta_auc_users": 5})
    assert result["tasks"]["positive"]["DPR"]["satisfied@10"] == 1
    assert "negative_ndcg@10" not in result["best_valid_result"]


@pytest.mark.parametrize(("epochs", "risen_after"), [(100, 60), (8, 10)])
def test_the_learning_rate_rises_over_an_eighth_of_a_stage_at_most(epochs, risen_after):
    options = SimpleNamespace(epochs=epochs, schedule="constant")
    stage = Stage(1, "", options, range(10), len, [], False)
    rates = [stage.rate(step, 60) for step in range(80)]
    assert rates.index(1.0) == risen_after - 1
    assert rates[0] == pytest.approx(1 / risen_after)
