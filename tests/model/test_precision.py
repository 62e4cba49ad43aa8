"""A reader that comes trained multiplies in bfloat16 where the processor can: it must read the same."""

import pytest
import torch

from recbole_dpr.files import properties_dir, read_yaml
from recbole_dpr.model import pretrained
from recbole_dpr.model.build import make_encoder, reading_encoder
from recbole_dpr.model.pretrained import (
    fingerprint,
    make_reader,
    multiplies_bfloat16,
    reading_precision,
    save_reader,
)
from recbole_dpr.model.reader import PromptReader
from recbole_dpr.text.mentions import Mentions

VALUES = ["comedy", "drama", "horror", "western", "romance", "war"]
SAID = [
    "a comedy tonight, nothing with ghosts",
    "no horror please, and my wife is tired of westerns",
    "I don't mind a western",
    "good evening",
    "something romantic for the two of us",
]


def options(**given):
    config = read_yaml(properties_dir() / "model" / "DPR.yaml")
    return config | {"text_cache_dir": None, "device": "cpu"} | given


@pytest.fixture(scope="module")
def seen():
    """The encoded names, and what a reader sees of the sentences."""
    encoder = make_encoder(options())
    return encoder.vectors(VALUES), encoder.token_states(SAID)


@torch.no_grad()
def test_both_precisions_decide_alike(seen):
    names, sentences = seen
    exact, rounded = (
        make_reader(names, options(reader_precision=p), "shipped").eval()(*sentences)
        for p in ("float32", "bfloat16")
    )
    assert rounded.dtype == torch.float32 and not torch.equal(exact, rounded)
    chance = [logits.softmax(dim=-1) for logits in (exact, rounded)]
    torch.testing.assert_close(*chance, atol=0.1, rtol=0)
    assert torch.equal(exact.argmax(dim=-1), rounded.argmax(dim=-1))
    assert exact.argmax(dim=-1).any()


@torch.no_grad()
def test_weights_stay_exact_and_the_copies_follow_them(seen):
    names, sentences = seen
    reader = make_reader(names, options(reader_precision="bfloat16"), "shipped").eval()
    exact = make_reader(names, options(reader_precision="float32"), "shipped").eval()
    first = reader(*sentences)
    for (name, weight), (its, of_exact) in zip(
        reader.state_dict().items(), exact.state_dict().items(), strict=True
    ):
        assert name == its and torch.equal(weight, of_exact)
    reader.upper[0].linear1.bias += 1
    assert not torch.allclose(reader(*sentences), first, atol=0.1)
    reader.load_state_dict(exact.state_dict())
    assert torch.equal(reader(*sentences), first)


def test_what_is_trained_is_trained_exactly(seen):
    names, sentences = seen
    reader = make_reader(names, options(reader_precision="bfloat16"), "shipped").train()
    reader.upper.requires_grad_(True)
    reader(*sentences).sum().backward()
    assert reader.upper[0].linear1.weight.grad.abs().sum() > 0
    assert make_reader(names, options(reader="trained"), "trained").precision == torch.float32


@pytest.mark.parametrize(
    ("asked", "device", "can", "expected"),
    [
        (None, "cpu", True, "bfloat16"),
        (None, "cpu", False, "float32"),
        (None, "cuda", True, "float32"),
        ("float32", "cpu", True, "float32"),
        ("bfloat16", "cpu", False, "bfloat16"),
        ("bfloat16", "cuda", False, "bfloat16"),
    ],
)
def test_the_processor_decides_where_nobody_has(monkeypatch, asked, device, can, expected):
    monkeypatch.setattr(pretrained, "multiplies_bfloat16", lambda: can)
    assert reading_precision({"reader_precision": asked, "device": device}) == expected


@pytest.mark.parametrize(
    ("told", "can"),
    [
        ({"avx512_bf16": True}, True),
        ({"amx_bf16": True}, True),
        ({"avx2": True}, False),
        ({}, False),
    ],
)
def test_what_the_processor_can(monkeypatch, told, can):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: told, raising=False)
    assert multiplies_bfloat16.__wrapped__() is can


def test_a_torch_that_cannot_tell_keeps_to_float32(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert not multiplies_bfloat16.__wrapped__()


def test_readings_of_both_are_kept_apart(seen):
    mentions = Mentions([[value] for value in VALUES])
    marks = {
        fingerprint(make_reader(seen[0], options(reader_precision=p), "shipped"), mentions)
        for p in ("float32", "bfloat16")
    }
    assert len(marks) == 2


def test_the_encoder_that_a_reader_brings_along_goes_with_it(tiny_encoder, tmp_path):
    path = tmp_path / "mine.safetensors"
    save_reader(PromptReader(torch.zeros(0, 16), 4, upper=0), path, str(tiny_encoder))
    config = options(reader=str(path), reader_precision="bfloat16")
    own = make_encoder(config)
    assert reading_encoder(config, own, str(path)).precision == "bfloat16"
    assert own.precision == "float32"
