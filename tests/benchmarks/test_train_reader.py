"""Readers of one's own: what is trained is what a run reads with."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from recbole_dpr.data.intent import Intent
from recbole_dpr.data.loading import load_data
from recbole_dpr.data.phrasebook import Phrasebook
from recbole_dpr.errors import DPRError
from recbole_dpr.model.build import build_dpr, make_encoder
from recbole_dpr.text.adapted import AdaptedEncoder
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
    from reader.held_out import marks
    from reader.trainee import EncoderTrainee

    torch.manual_seed(0)
    trainee = EncoderTrainee(str(find_encoder(None)), 1, 64, CPU)
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
    path = tmp_path / "mine.safetensors"
    trainee.cut_down()
    trainee.save(path)
    config = tiny_config("DPR-SASRec", reader=str(path))
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
    own = (
        EncoderTrainee(str(find_encoder(None)), 1, 64, CPU).eval().states(["nothing blue today"])[0]
    )
    learned = trainee.states(["nothing blue today"])[0]
    with trainee.interpolated(1.0):
        torch.testing.assert_close(trainee.states(["nothing blue today"])[0], own)
    assert torch.equal(trainee.states(["nothing blue today"])[0], learned)
    assert not torch.allclose(own, learned)


def test_layers_that_an_encoder_has_not_are_refused():
    from reader.trainee import EncoderTrainee

    with pytest.raises(DPRError, match="has 6 layers, of which 7 cannot be trained"):
        EncoderTrainee(str(find_encoder(None)), 7, 64, CPU)


def test_what_is_written_of_a_change_is_the_nearest_of_its_rank():
    from reader.trainee import factors

    torch.manual_seed(0)
    thin = torch.randn(6, 2) @ torch.randn(2, 4)
    up, down = factors(thin, 2)
    torch.testing.assert_close(up @ down, thin)
    up, down = factors(thin, 1)
    strongest = torch.linalg.matrix_norm(thin, 2)
    torch.testing.assert_close(torch.linalg.matrix_norm(up @ down), strongest)
    bias = torch.randn(5)
    up, down = factors(bias, 1)
    assert torch.equal((up @ down)[:, 0], bias)


@torch.no_grad()
@pytest.mark.parametrize(
    "family", ["GPT2", "T5"]
)  # weights the other way round, half of two stacks
def test_changed_layers_of_other_families_are_written_and_read_back(family, tmp_path):
    import transformers

    from reader.trainee import EncoderTrainee

    folder = tmp_path / family
    transformers.AutoTokenizer.from_pretrained(find_encoder(None)).save_pretrained(folder)
    sizes = {
        "GPT2": {"n_embd": 16, "n_layer": 2, "n_head": 2},
        "T5": {"d_model": 16, "d_ff": 24, "d_kv": 8, "num_heads": 2, "num_layers": 2},
    }
    config = getattr(transformers, f"{family}Config")(vocab_size=30522, **sizes[family])
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    trainee = EncoderTrainee(str(folder), 2, 16, CPU).eval()
    trainee.keep_own_layers()
    said = ["nothing blue today, but something red"]
    own = trainee.states(said)[0]
    for weight in trainee.layers.parameters():
        weight += 0.3 * torch.randn_like(weight)
    trainee.cut_down()
    trainee.save(tmp_path / "mine.safetensors")
    read = AdaptedEncoder(tmp_path / "mine.safetensors").token_states(said)[0]
    torch.testing.assert_close(read, trainee.states(said)[0])
    assert (read - own).abs().max() > 0.2


@pytest.mark.parametrize("kind", ["shipped", "other"])
def test_the_command_writes_a_reader_and_says_how_well_it_reads(tmp_path, kind):
    out = tmp_path / "reader.safetensors"
    command = [sys.executable, str(TRAIN_READER), "--out", str(out)]
    command += [
        "--text_encoder",
        str(find_encoder(None)),
        "--layers=1",
        "--rank=2",
        "--utterances=0",
    ] * (kind == "other")
    command += ["--steps=2", "--log_every=2", "--measured=12", "--batch_size=4", "--device=cpu"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    read = json.loads(done.stdout.splitlines()[-1])["read"]
    assert set(read) == {"unseen", "hard", "idioms", "implied", "uttered", "generic"}
    assert all(0 <= figures["exact"] <= 1 for kinds in read.values() for figures in kinds.values())
    weights = load_file(out)
    assert any(name.startswith("upper.") for name in weights) == (kind == "shipped")
    changes = {name: weight.shape for name, weight in weights.items() if name.startswith("lora.")}
    assert bool(changes) == (kind == "other")
    assert all(2 in shape or 1 in shape for shape in changes.values())


def test_layers_of_no_other_encoder_are_refused(tmp_path, monkeypatch, capsys):
    from train_reader import arguments

    out = tmp_path / "reader.safetensors"
    monkeypatch.setattr(sys, "argv", ["train_reader.py", f"--out={out}", "--rank=8"])
    with pytest.raises(SystemExit):
        arguments()
    assert "--layers and --rank are of --text_encoder" in capsys.readouterr().err


def same_weights(*paths):
    """Whether two files hold the same, whatever the order in their headers."""
    a, b = (load_file(path) for path in paths)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("kind", ["shipped", "other"])
def test_a_killed_training_goes_on_to_the_same_reader(tmp_path, monkeypatch, capsys, kind):
    import train_reader
    from reader.held_out import Measured
    from reader.training import Training

    def drawn(rng):
        return SAID[int(rng.integers(len(SAID)))]

    colours = SimpleNamespace(book=SimpleNamespace(readable=NAMES), draw=drawn)
    monkeypatch.setattr(train_reader, "domains_of", lambda share: [colours, colours])
    monkeypatch.setattr(train_reader, "held_out", lambda *_: {"said": Measured(NAMES, SAID)})
    step = Training.step

    def train(out, killed_before=0, *options):
        """Six steps, or those before it is killed."""

        def killed(self):
            if self.done + 1 == killed_before:
                raise KeyboardInterrupt
            return step(self)

        few = ["--steps=6", "--log_every=2", "--batch_size=3", "--device=cpu"]
        few += ["--text_encoder", str(find_encoder(None)), "--layers=1"] * (kind == "other")
        monkeypatch.setattr(Training, "step", killed)
        monkeypatch.setattr(sys, "argv", ["train_reader.py", f"--out={out}", *few, *options])
        train_reader.main()

    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    train(whole)
    with pytest.raises(KeyboardInterrupt):
        train(parts, 6)
    assert not same_weights(parts, whole)
    with pytest.raises(DPRError, match="of a training with another --seed, 2021"):
        train(parts, 0, "--seed=1")
    progress = parts.with_suffix(".resume")
    saved = progress.read_bytes()
    progress.write_bytes(saved[:-100])
    with pytest.raises(DPRError, match=r"is damaged .*: delete it to begin anew"):
        train(parts)
    progress.write_bytes(saved)
    capsys.readouterr()
    train(parts)
    assert "going on after step 4" in capsys.readouterr().out
    assert same_weights(parts, whole)
    assert {path.name for path in tmp_path.iterdir()} == {whole.name, parts.name}
