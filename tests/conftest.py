"""Fixtures that all tests share: a tiny data set whose right answers are known."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from recbole_dpr import run_recbole_dpr
from recbole_dpr.config import DPRConfig
from recbole_dpr.model.pretrained import save_reader
from recbole_dpr.model.reader import INCLUDE, PromptReader
from recbole_dpr.text.hub import find_encoder

# Two kinds of thing that every user takes in turn, and a third that half of the items also have.
VALUES = ("red", "blue")
THIRD = "green"
N_USERS = 40
N_ITEMS = 24
HISTORY = 12
SHORT_STAGES = {f"stage{n}_epochs": 1 for n in (1, 2, 3)}
# A model small enough that an epoch takes no time.
SMALL = {
    "hidden_size": 16,
    "inner_size": 16,
    "n_layers": 1,
    "n_heads": 1,
    "MAX_ITEM_LIST_LENGTH": 10,
    "window_stride": 5,
    "prompt_size": 16,
    "semantic_size": 8,
    "fusion_heads": 2,
    "n_experts": 2,
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Minimal pairs read by others: `pytest tests/model/test_reading.py --reader shipped large`."""
    reads = "who reads tests/model/minimal_pairs.yaml"
    parser.addoption("--reader", nargs="+", default=["shipped"], help=reads)


def pytest_configure() -> None:
    """One thread for each of several processes that test at a time, and for what they start."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        torch.set_num_threads(1)
        os.environ.setdefault("OMP_NUM_THREADS", "1")


def write_atomic(folder: Path, name: str, rows: dict[str, list[list[Any]]]) -> None:
    """Write RecBole atomic files: the first row of each holds the `column:type` names."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    for suffix, lines in rows.items():
        text = "".join("\t".join(map(str, line)) + "\n" for line in lines)
        (folder / name / f"{name}.{suffix}").write_text(text, encoding="utf-8")


def write_tiny(folder: Path) -> Path:
    """Write the data set `tiny`, and return `folder`.

    Items `i0`, `i2`, ... are red, `i1`, `i3`, ... are blue, and the second half is green as well.
    Every user takes red and blue things strictly in turn, so what comes next has the other colour
    of what came last, always.
    """
    rng = random.Random(7)
    colours: list[list[str]] = [[f"i{n}" for n in range(N_ITEMS) if n % 2 == k] for k in (0, 1)]
    inter: list[list[Any]] = [["user_id:token", "item_id:token", "timestamp:float"]]
    for user in range(N_USERS):
        orders = [rng.sample(items, HISTORY // 2) for items in colours]
        inter.extend(
            [f"u{user}", orders[(user + step) % 2][step // 2], step + 1] for step in range(HISTORY)
        )
    item: list[list[Any]] = [["item_id:token", "title:token_seq", "colour:token_seq"]]
    for n in range(N_ITEMS):
        third = f" {THIRD}" if n >= N_ITEMS // 2 else ""
        item.append([f"i{n}", f"Thing number {n}", VALUES[n % 2] + third])
    write_atomic(folder, "tiny", {"inter": inter, "item": item})
    return folder


def options_for(data_path: Path, folder: Path) -> dict[str, Any]:
    """Options for a run on `tiny` that writes below `folder` only."""
    return {
        "data_path": str(data_path),
        "checkpoint_dir": str(folder / "saved"),
        "text_cache_dir": str(folder / "cache"),
        "prompt_fields": ["colour"],
        "item_text_fields": ["title", "colour"],
        "title_field": "title",
        "phrasebook": "generic",
        "show_progress": False,
        "state": "warning",
        **SMALL,
        **SHORT_STAGES,
    }


@pytest.fixture
def data_path(tmp_path: Path) -> Path:
    """A folder that holds the data set `tiny`; see `write_tiny`."""
    return write_tiny(tmp_path / "data")


@pytest.fixture
def tiny_options(data_path: Path, tmp_path: Path) -> dict[str, Any]:
    """Options for a run on `tiny` that writes below `tmp_path` only."""
    return options_for(data_path, tmp_path)


@pytest.fixture(scope="session")
def make_tiny_options(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[], tuple[Path, dict[str, Any]]]:
    """Make a folder that is new and holds `tiny`, and options for a run that writes below it only."""

    def make() -> tuple[Path, dict[str, Any]]:
        folder = tmp_path_factory.mktemp("run")
        return folder, options_for(write_tiny(folder / "data"), folder)

    return make


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a run of DPR-SASRec on `tiny` returned that was long enough to learn the colours."""
    folder = tmp_path_factory.mktemp("trained")
    here = os.getcwd()
    os.chdir(folder)  # RecBole's tensorboard folder goes to where one stands
    try:
        options = options_for(write_tiny(folder / "data"), folder)
        options |= {"stage1_epochs": 40, "stage2_epochs": 10, "stage3_epochs": 20}
        options |= {"stage1_batch_size": 8, "stage3_batch_size": 8, "warmup_steps": 10}
        options |= {"hidden_dropout_prob": 0.1, "attn_dropout_prob": 0.1, "stage1_patience": 40}
        return run_recbole_dpr("DPR-SASRec", "tiny", config_dict=options)
    finally:
        os.chdir(here)


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing that a test writes land in the repository."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def tiny_config(tiny_options: dict[str, Any]) -> Callable[..., DPRConfig]:
    """Make a config for `tiny`: `tiny_config("DPR-GRU4Rec", seed=1)`."""

    def make(model: str | type = "DPR-SASRec", **options: Any) -> DPRConfig:
        return DPRConfig(model, "tiny", config_dict={**tiny_options, **options})

    return make


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a decoder of 16 numbers per token, with random weights: another family, without downloads."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("encoder")
    transformers.AutoTokenizer.from_pretrained(find_encoder(None)).save_pretrained(folder)
    config = transformers.GPT2Config(
        vocab_size=30522, n_embd=16, n_layer=1, n_head=2, n_positions=256
    )
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def greedy_reader(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """File of a reader over `tiny_encoder` that takes every prompt for a wish for everything."""
    path = tmp_path_factory.mktemp("reader") / "greedy.safetensors"
    reader = PromptReader(torch.zeros(0, 16), 4, upper=0)
    with torch.no_grad():
        reader.judge[-1].bias[INCLUDE] = 1000.0
    save_reader(reader, path, str(tiny_encoder))
    return path
