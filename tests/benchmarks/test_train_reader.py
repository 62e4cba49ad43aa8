"""Readers of one's own: what is trained is what a run reads with."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from recbole_dpr.data.intent import Intent
from recbole_dpr.data.loading import load_data
from recbole_dpr.data.phrasebook import Phrasebook
from recbole_dpr.errors import DPRError
from recbole_dpr.model.build import build_dpr, make_encoder
from recbole_dpr.text.hub import find_encoder

TRAIN_READER = Path(__file__).resolve().parents[2] / "benchmarks" / "train_reader.py"
CPU = torch.device("cpu")
NAMES = ["red", "blue", "green"]
SAID = [
    ("something red please", Intent((0,))),
    ("nothing blue today", Intent((), (1,))),
    ("red, but not green", Intent((0,), (2,))),
    ("good morning", Intent()),
]


@pytest.fixture(scope="module")
def trainee():
    """A reader over the default encoder, which has learned four sentences by heart."""
    from reader.trainee import EncoderTrainee
    from train_reader import marks

    torch.manual_seed(0)
    trainee = EncoderTrainee(str(find_encoder(None)), 1, CPU)
    trainee.keep_own_layers()
    weights = [weight for weight in trainee.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-3)
    texts, intents = zip(*SAID, strict=True)
    sides = marks(list(intents), [0, 1, 2], 3)
    for _ in range(60):
        trainee.train()
        loss = trainee.reader.loss(trainee(texts, NAMES), *sides)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1
    return trainee


@torch.no_grad()
def test_a_run_reads_as_the_trainee_does(trainee, tiny_config, tmp_path):
    trainee.save(tmp_path / "reader")
    config = tiny_config("DPR-SASRec", reader=str(tmp_path / "reader"))
    data = load_data(config)
    called = Phrasebook.load("generic", data.whole.attributes.values).called
    model = build_dpr(config, data.train, called, data.whole.item_text, make_encoder(config))
    order = [NAMES.index(value) for value in data.whole.attributes.values]
    include, exclude = (
        side[:, torch.tensor(order).argsort()] for side in model.read([t for t, _ in SAID])
    )
    for row, (_, intent) in enumerate(SAID):
        assert include[row].nonzero()[:, 0].tolist() == list(intent.include)
        assert exclude[row].nonzero()[:, 0].tolist() == list(intent.exclude)


@torch.no_grad()
def test_all_the_way_back_the_layers_are_the_encoders_own(trainee):
    from reader.trainee import EncoderTrainee

    trainee.eval()
    own = EncoderTrainee(str(find_encoder(None)), 1, CPU).eval().states(["nothing blue today"])[0]
    learned = trainee.states(["nothing blue today"])[0]
    with trainee.interpolated(1.0):
        torch.testing.assert_close(trainee.states(["nothing blue today"])[0], own)
    assert torch.equal(trainee.states(["nothing blue today"])[0], learned)
    assert not torch.allclose(own, learned)


def test_layers_that_an_encoder_has_not_are_refused(tmp_path):
    from reader.trainee import EncoderTrainee

    with pytest.raises(DPRError, match="has 6 layers, of which 7 cannot be trained"):
        EncoderTrainee(str(find_encoder(None)), 7, CPU)


@pytest.mark.parametrize("kind", ["shipped", "folder"])
def test_the_command_writes_a_reader_and_says_how_well_it_reads(tmp_path, kind):
    from safetensors.torch import load_file

    folder = ["--text_encoder", str(find_encoder(None)), "--layers", "1"]
    out = tmp_path / ("reader" if kind == "folder" else "reader.safetensors")
    command = [sys.executable, str(TRAIN_READER), "--out", str(out)]
    command += folder * (kind == "folder")
    command += ["--steps=2", "--log_every=2", "--measured=12", "--batch_size=4", "--device=cpu"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    read = json.loads(done.stdout.splitlines()[-1])["read"]
    assert set(read) == {"unseen", "hard", "idioms", "implied", "generic"}
    assert all(0 <= figures["exact"] <= 1 for kinds in read.values() for figures in kinds.values())
    weights = load_file(out / "reader.safetensors" if kind == "folder" else out)
    assert any(name.startswith("upper.") for name in weights) == (kind == "shipped")
    assert (out / "config.json").is_file() == (kind == "folder")
