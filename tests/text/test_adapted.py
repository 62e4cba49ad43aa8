"""An encoder whose weights a reader's file changes: the right ones, of the right encoder."""

import shutil

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModel, MPNetConfig, MPNetModel

from recbole_dpr.errors import DPRError
from recbole_dpr.model.pretrained import LARGE_READER_FILE, load_reader, save_reader
from recbole_dpr.model.reader import PromptReader
from recbole_dpr.text import TextEncoder
from recbole_dpr.text.adapted import DOWN, LORA, UP, AdaptedEncoder, hash_of_vectors

SAID = ["nothing blue today", "red"]
WEIGHT, BIAS = "h.0.attn.c_attn.weight", "h.0.attn.c_attn.bias"  # [16, 48], [48]


def changed(path, encoder, scale=1.0, before=""):
    """A reader's file that changes a matrix and a bias of `tiny_encoder`."""
    torch.manual_seed(0)
    changes = {
        BIAS: (scale * torch.randn(48, 1), torch.ones(1, 1)),
        WEIGHT: (scale * torch.randn(16, 2), torch.randn(2, 48)),
    }
    reader = PromptReader(torch.zeros(0, 16), 4, upper=0)
    save_reader(reader, path, str(encoder), changes, before)
    return path


def test_the_products_are_added_to_the_weights(tiny_encoder, tmp_path):
    encoder = AdaptedEncoder(changed(tmp_path / "mine.safetensors", tiny_encoder))
    own = dict(AutoModel.from_pretrained(tiny_encoder).named_parameters())
    file = safe_open(tmp_path / "mine.safetensors", framework="pt")
    for name, weight in encoder._loaded[1].named_parameters():
        expected = own[name]
        if name in (WEIGHT, BIAS):
            up, down = (file.get_tensor(LORA + name + side).float() for side in (UP, DOWN))
            expected = expected + (up @ down).reshape(expected.shape)
        torch.testing.assert_close(weight, expected)
    assert not torch.allclose(
        encoder.token_states(SAID)[0], TextEncoder(str(tiny_encoder)).token_states(SAID)[0]
    )


def test_small_changes_survive_half_precision(tiny_encoder, tmp_path):
    """Added to weights that are rounded already, most of them would be lost."""
    path = changed(tmp_path / "mine.safetensors", tiny_encoder, scale=1e-3)
    half, whole = (AdaptedEncoder(path, precision=p) for p in ("bfloat16", "float32"))
    weight, exact = (dict(e._loaded[1].named_parameters())[WEIGHT] for e in (half, whole))
    assert weight.dtype == torch.bfloat16 and torch.equal(weight, exact.to(torch.bfloat16))


def test_what_two_files_make_of_one_encoder_is_kept_apart(tiny_encoder, tmp_path):
    cache = tmp_path / "cache"
    names = {
        scale: AdaptedEncoder(
            changed(tmp_path / f"{scale}.safetensors", tiny_encoder, scale), cache_dir=str(cache)
        ).vectors(SAID)
        for scale in (1.0, 2.0)
    }
    assert not torch.allclose(names[1.0], names[2.0])
    assert len(list(cache.iterdir())) == 2


def test_token_states_are_not_kept(tiny_encoder, tmp_path):
    path = changed(tmp_path / "mine.safetensors", tiny_encoder)
    AdaptedEncoder(path, cache_dir=str(tmp_path / "cache")).token_states(SAID)
    assert not (tmp_path / "cache").exists()


def test_another_encoder_of_the_same_name_is_refused(tiny_encoder, tmp_path):
    folder = shutil.copytree(tiny_encoder, tmp_path / "encoder")
    model = AutoModel.from_pretrained(folder)
    before = hash_of_vectors([dict(model.named_parameters())[BIAS]])
    path = changed(tmp_path / "mine.safetensors", folder, before=before)
    AdaptedEncoder(path).token_states(SAID)
    with torch.no_grad():
        dict(model.named_parameters())[BIAS].add_(0.1)
    model.save_pretrained(folder)
    with pytest.raises(DPRError, match=r"was not trained over the text encoder in .*encoder, but"):
        AdaptedEncoder(path).token_states(SAID)


def test_the_large_reader_fits_its_encoder(monkeypatch, tmp_path):
    """That encoder is not there in tests; its shapes follow from its published configuration."""
    with torch.device("meta"):
        model = MPNetModel(MPNetConfig(vocab_size=30527))
    shapes = {name: weight.shape for name, weight in model.named_parameters()}
    file = safe_open(LARGE_READER_FILE, framework="pt")
    names = {name.removeprefix(LORA).removesuffix(UP) for name in file.keys() if name.endswith(UP)}  # noqa: SIM118
    assert {name.split(".")[2] for name in names} == {str(layer) for layer in range(4, 12)}
    for name in names:
        up, down = (file.get_slice(LORA + name + side).get_shape() for side in (UP, DOWN))
        rows, columns = (*shapes[name], 1)[:2]
        assert (up, down) == ([rows, min(64, columns)], [min(64, columns), columns])
    assert load_reader(torch.zeros(3, 768), LARGE_READER_FILE).comes_trained
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DPRError, match="'sentence-transformers/all-mpnet-base-v2' is no folder"):
        AdaptedEncoder(LARGE_READER_FILE)
