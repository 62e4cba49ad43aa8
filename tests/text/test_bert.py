"""The quick encoder gives what transformers gives."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from recbole_dpr.errors import DPRError
from recbole_dpr.files import properties_dir, read_yaml
from recbole_dpr.model.build import make_encoder
from recbole_dpr.text import TextEncoder
from recbole_dpr.text.bert import BertEncoder, is_plain_bert
from recbole_dpr.text.hub import find_encoder

TEXTS = ["a comedy, please", "", "no horror \U0001f642 " * 40, "Amélie (2001)", "x"]


@pytest.mark.parametrize("states_layer", [None, 3])
def test_states_and_vectors_equal_those_of_transformers(states_layer):
    slow, quick = (kind(states_layer=states_layer) for kind in (TextEncoder, BertEncoder))
    for (expected, mask), (found, found_mask) in zip(
        [slow.token_states(TEXTS), slow.token_states(TEXTS[:1])],
        [quick.token_states(TEXTS), quick.token_states(TEXTS[:1])],
        strict=True,
    ):
        assert torch.equal(mask, found_mask)
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)
    torch.testing.assert_close(quick.vectors(TEXTS), slow.vectors(TEXTS), atol=1e-6, rtol=0)


def test_tokens_equal_those_of_transformers():
    slow, quick = TextEncoder(max_length=16), BertEncoder(max_length=16)
    assert quick._tokenize(TEXTS, 16) == slow._tokenize(TEXTS, 16)


def test_it_stands_in_for_a_plain_bert_only(tmp_path):
    assert is_plain_bert(None)
    source = find_encoder(None)
    for file in ("config.json", "tokenizer.json"):
        shutil.copy(source / file, tmp_path)
    assert not is_plain_bert(str(tmp_path))  # no weights
    (tmp_path / "model.safetensors").symlink_to(source / "model.safetensors")
    assert is_plain_bert(str(tmp_path))
    config = json.loads((tmp_path / "config.json").read_text())
    without = {name: value for name, value in config.items() if name != "layer_norm_eps"}
    for other in (config | {"hidden_act": "relu"}, without):
        (tmp_path / "config.json").write_text(json.dumps(other))
        assert not is_plain_bert(str(tmp_path))


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_damaged_encoder_is_named(tmp_path, file):
    folder = Path(shutil.copytree(find_encoder(None), tmp_path / "encoder"))
    (folder / file).write_text("version https://git-lfs.github.com/spec/v1")
    config = read_yaml(properties_dir() / "model" / "DPR.yaml")
    config |= {"text_encoder": str(folder), "text_cache_dir": None, "device": "cpu"}
    with pytest.raises(DPRError, match=r"text encoder '.*' cannot be loaded"):
        make_encoder(config).vectors(["a comedy"])
