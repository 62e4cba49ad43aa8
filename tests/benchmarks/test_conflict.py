"""The measurement of gradient conflict: right on known gradients, and without a trace in the training."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import gradients
from recbole_dpr.config import DPRConfig
from recbole_dpr.data.loading import load_data
from recbole_dpr.data.phrasebook import Phrasebook
from recbole_dpr.data.windows import TARGET_LIST, WindowLoader
from recbole_dpr.training.setup import build_model, prompted_training, training_loader
from recbole_dpr.training.trainer import DPRTrainer

CONFLICT = Path(gradients.__file__).with_name("conflict.py")


def prepare(options):
    config = DPRConfig("DPR-SASRec", "tiny", config_dict=options)
    data = load_data(config)
    book = Phrasebook.load(config["phrasebook"], data.whole.attributes.values)
    torch.manual_seed(0)
    return config, data, book, build_model(config, data, book)


@pytest.fixture
def model_and_probes(tiny_options):
    config, data, _, model = prepare(tiny_options | {"n_experts": 3})
    model.freeze_backbone()
    for weight in model.steering_parameters():  # as if trained: no gradient is zero
        weight.data += 0.1 * torch.randn_like(weight)
    loader = WindowLoader(config, data.train, 8, fixed_cuts=True)
    return model, gradients.make_probes(model, loader, size=20)


def test_probes_ask_one_kind_each_over_windows_of_their_own(model_and_probes):
    model, probes = model_and_probes
    for wanted, unwanted in zip(probes["positive"], probes["negative"], strict=True):
        assert wanted.include.any(dim=1).all() and not wanted.exclude.any()
        assert unwanted.exclude.any(dim=1).all() and not unwanted.include.any()
        assert wanted.batch is unwanted.batch
        targets = wanted.batch[TARGET_LIST][wanted.where]
        assert (wanted.include.bool() <= model.attributes.matrix[targets]).all()
    first, second = (set(probe.batch["window"].tolist()) for probe in probes["positive"])
    assert len(first) == len(second) == 20 and not first & second


def test_cosines_are_those_of_the_gradients_that_backward_gives(model_and_probes):
    model, probes = model_and_probes
    model.eval()
    names = [name for name, _ in model.named_parameters() if name.startswith("experts.experts.1.")]
    found = []
    for kind, half in (("positive", 0), ("negative", 1), ("positive", 1), ("negative", 0)):
        probe = probes[kind][half]
        model.zero_grad()
        model.steered_loss(
            probe.batch, probe.part, probe.where, probe.include, probe.exclude
        ).backward()
        found.append(torch.cat([model.get_parameter(name).grad.flatten() for name in names]))
    model.zero_grad()
    across = [torch.cosine_similarity(found[i], found[i + 1], dim=0) for i in (0, 2)]
    measured = gradients.cosines(model, probes)["expert 2"]
    assert measured["between"] == pytest.approx(float(sum(across)) / 2, abs=1e-3)
    alike = torch.cosine_similarity(found[0], found[2], dim=0)
    assert measured["positive"] == pytest.approx(float(alike), abs=1e-3)


def test_opposite_gradients_have_cosine_minus_one_and_none_has_none():
    a = torch.tensor([1.0, 2.0, -3.0])
    assert gradients.cosine(a, -2 * a) == -1 and gradients.cosine(a, 5 * a) == 1
    assert gradients.cosine(a, torch.tensor([3.0, 0.0, 1.0])) == 0
    assert gradients.cosine(a, torch.zeros(3)) is None


@pytest.mark.parametrize("fusion", [True, False])
def test_measuring_leaves_the_training_as_it_is(tiny_options, tmp_path, fusion):
    options = tiny_options | {"stage3_epochs": 3, "stage3_batch_size": 8, "fusion": fusion}
    trained = []
    for kind, more in ((DPRTrainer, {}), (gradients.WatchedTrainer, {"every": 4, "windows": 10})):
        config, data, book, model = prepare(options)
        torch.manual_seed(1)
        trainer = kind(config, model, tmp_path, prompted_training(config, data, book), **more)
        trainer.fit(training_loader(config, data, model), saved=False)
        trained.append(model.state_dict())
    assert all(torch.equal(trained[0][name], trained[1][name]) for name in trained[0])
    steps = sum(row["steps"] for row in trainer.history if row["stage"] == 3)
    assert trainer.steps == list(range(0, steps, 4)) and len(trainer.steps) > 3
    assert ("fusion" in trainer.cosines) == fusion
    for found in trainer.cosines.values():
        assert set(found) == {"between", "positive", "negative"}
        for values in found.values():
            assert len(values) == len(trainer.steps)
            assert all(value is None or -1 <= value <= 1 for value in values)
    for weights in trainer.router.values():
        assert all(sum(row) == pytest.approx(1, abs=1e-3) for row in weights)


def test_the_command_records_draws_and_runs_nothing_twice(tiny_options, tmp_path):
    options = [f"--{name}={value}" for name, value in tiny_options.items() if name != "n_experts"]
    command = [sys.executable, str(CONFLICT), "--dataset", "tiny", "--seeds", "1"]
    command += ["--n_experts", "1", "2", "--every", "2", "--results", str(tmp_path / "results")]
    command += ["--plot", str(tmp_path / "plot.png"), *options]
    first = subprocess.run(command, capture_output=True, text=True, check=True)
    folder = tmp_path / "results" / "tiny" / "conflict"
    paths = sorted(folder.iterdir())
    names = [f"DPR-SASRec-experts-{n}-seed-1.json" for n in (1, 2)]
    assert [path.name for path in paths] == names
    record = json.loads(paths[1].read_text())
    assert (record["n_experts"], record["seed"], record["dataset"]) == (2, 1, "tiny")
    assert len(record["cosines"]["expert 2"]["between"]) == len(record["steps"])
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert "| mixture of experts, 2 experts |" in first.stdout
    written = [path.stat().st_mtime_ns for path in paths]
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert again.stdout == first.stdout and "wrote" not in again.stderr
    assert [path.stat().st_mtime_ns for path in paths] == written


def test_a_report_without_records_says_so(tmp_path):
    command = [sys.executable, str(CONFLICT), "--report", "--results", "nowhere"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode and "holds no record of DPR-SASRec" in done.stderr
