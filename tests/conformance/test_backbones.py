"""Every backbone keeps the same promises, on data whose right answer is known.

`pytest tests/conformance` runs over all 31; `-k NARM` over one. In the data set `turns` users take red and
blue things in turns of one to three, so that nobody knows what comes next, and a prompt always helps.
"""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pytest
import torch
from recbole.model.abstract_recommender import SequentialRecommender
from torch import nn

from recbole_dpr import load, quick_start
from recbole_dpr.config import DPRConfig
from recbole_dpr.evaluation import measure
from recbole_dpr.model.steering import STEERING, Scores
from recbole_dpr.serving.recommender import Recommender
from recbole_dpr.training import setup

VALUES = ("red", "blue")
N_USERS, N_ITEMS, LENGTH, TOP = 40, 24, 12, 5
# The smallest that trains, for whichever options a model has.
SMALL = {
    "hidden_size": 16,
    "inner_size": 16,
    "embedding_size": 16,
    "kg_embedding_size": 16,
    "mlp_hidden_size": [16],
    "n_layers": 2,  # FEARec divides by one less
    "n_heads": 1,
    "block_num": 1,
    "nh": 2,
    "nv": 2,
    "prototype_size": 8,
    "reranker_CAN_NUM": TOP,
    "dropout_prob": 0.1,
    "hidden_dropout_prob": 0.1,
    "attn_dropout_prob": 0.1,
    "selected_features": ["colour"],
    "item_attribute": "colour",
    "pretrain_epochs": 1,
}
OPTIONS = {
    "MAX_ITEM_LIST_LENGTH": 10,
    "window_stride": 5,
    "prompt_size": 16,
    "prompt_dropout": 0.1,  # so few units have none to spare
    "semantic_size": 8,
    "fusion_heads": 2,
    "n_experts": 2,
    "prompt_fields": ["colour"],
    "item_text_fields": ["title", "colour"],
    "title_field": "title",
    "train_batch_size": 64,
    "stage1_epochs": 4,
    "stage2_epochs": 3,
    "stage3_epochs": 6,
    "stage3_patience": 6,
    "stage3_batch_size": 16,
    "stage3_learning_rate": 0.005,
    "stage3_valid_metric": "Satisfied@10",
    "warmup_steps": 5,
    "show_progress": False,
    "state": "info",
}


class MeanOfTheLast(SequentialRecommender):
    """A backbone that is not RecBole's: the mean of the last three items, by dot product."""

    default_options: ClassVar = {"loss_type": "CE", "size": 16}

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.item_embedding = nn.Embedding(self.n_items, config["size"], padding_idx=0)
        self.dense = nn.Linear(config["size"], config["size"])

    def forward(self, item_seq, item_seq_len):
        steps = torch.arange(item_seq.shape[1])
        recent = (steps < item_seq_len[:, None]) & (steps >= item_seq_len[:, None] - 3)
        items = self.item_embedding(item_seq) * recent[..., None]
        return self.dense(items.sum(dim=1) / recent.sum(dim=1, keepdim=True))

    def calculate_loss(self, interaction):
        scores = self.full_sort_predict(interaction)
        return nn.functional.cross_entropy(scores, interaction[self.ITEM_ID])

    def full_sort_predict(self, interaction):
        state = self.forward(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN])
        return state @ self.item_embedding.weight.T


class Distance(MeanOfTheLast):
    """Another: its scores are no dot product, and the class says so."""

    steering = Scores("its score is a distance")

    def full_sort_predict(self, interaction):
        state = self.forward(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN])
        return -torch.cdist(state, self.item_embedding.weight)


class Trained(NamedTuple):
    """A run on `turns`, and what it had in memory when it ended."""

    model: Any
    data: Any
    config: DPRConfig
    run_dir: Path
    log: str


def write(folder: Path, suffix: str, columns: str, rows: list[str]) -> None:
    lines = [columns, *rows]
    text = "".join("\t".join(line.split(",")) + "\n" for line in lines)
    (folder / f"turns.{suffix}").write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Holds the data set `turns`: items i0, i2, ... are red, i1, i3, ... are blue."""
    folder = tmp_path_factory.mktemp("conformance")
    data, rng = folder / "data" / "turns", random.Random(7)
    data.mkdir(parents=True)
    inter = []
    for user in range(N_USERS):
        left = [rng.sample(range(k, N_ITEMS, 2), N_ITEMS // 2) for k in (0, 1)]
        colours = [(user + turn) % 2 for turn in range(LENGTH) for _ in range(rng.randint(1, 3))]
        for step, colour in enumerate(colours[:LENGTH]):
            inter.append(f"u{user},i{left[colour].pop()},{step + 1}")
    numbers, values = range(N_ITEMS), [VALUES[n % 2] for n in range(N_ITEMS)]
    entities = [*(f"e{n}" for n in numbers), *VALUES]
    vector = {e: " ".join(f"{rng.gauss(0, 0.3):.3f}" for _ in range(16)) for e in [*entities, "is"]}
    write(data, "inter", "user_id:token,item_id:token,timestamp:float", inter)
    columns = "item_id:token,title:token_seq,colour:token"
    write(data, "item", columns, [f"i{n},Thing number {n},{values[n]}" for n in numbers])
    columns = "head_id:token,relation_id:token,tail_id:token"
    write(data, "kg", columns, [f"e{n},is,{values[n]}" for n in numbers])
    write(data, "link", "item_id:token,entity_id:token", [f"i{n},e{n}" for n in numbers])
    columns = "ent_id:token,ent_emb:float_seq"
    write(data, "ent", columns, [f"{entity},{vector[entity]}" for entity in entities])
    write(data, "rel", "rel_id:token,rel_emb:float_seq", [f"is,{vector['is']}"])
    return folder


def train(model: str | type, folder: Path) -> Trained:
    """Run it as a user would, and keep what the run had in memory."""
    kept: list[Any] = []
    paths = {"data_path": str(folder / "data"), "checkpoint_dir": str(folder / "saved")}
    paths["text_cache_dir"] = str(folder / "cache")
    known = DPRConfig(model, "turns", config_dict=paths).final_config_dict
    options = {**OPTIONS, **{k: v for k, v in SMALL.items() if k in known}, **paths}
    build = setup.build_model

    def build_and_keep(config, data, phrasebook):
        kept[:] = [build(config, data, phrasebook), data, config]
        return kept[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(setup, "build_model", build_and_keep)
        # A third of the time, and the same for every backbone: tests/evaluation has it.
        patch.setattr(measure, "write_report", lambda *_, **__: None)
        result = quick_start.run_recbole_dpr(model, "turns", config_dict=options)
    (log,) = Path(result["run_dir"]).glob("*.log")
    return Trained(*kept, Path(result["run_dir"]), log.read_text(encoding="utf-8"))


def name_of(model: str | type) -> str:
    return model if isinstance(model, str) else model.__name__


@pytest.fixture(scope="class", params=[*sorted(STEERING), MeanOfTheLast, Distance], ids=name_of)
def trained(request, folder):
    own = request.param
    return train(f"DPR-{own}" if isinstance(own, str) else own, folder)


def histories(n: int = 16) -> list[list[str]]:
    rng = random.Random(3)
    return [[f"i{i}" for i in rng.sample(range(N_ITEMS), rng.randint(3, 10))] for _ in range(n)]


def share(recommender: Recommender, prompt: str | None, value: str) -> float:
    """Of the top 5 over many histories, how many have the value."""
    asked = histories()
    lists = recommender.recommend(asked, [prompt] * len(asked), k=TOP)
    items = [int(token[1:]) for ranked in lists for token, _ in ranked]
    return float(np.mean([VALUES[item % 2] == value for item in items]))


class TestBackbone:
    def test_backbone(self, trained):
        """What is promised of each."""
        recommender = load(trained.run_dir, type(trained.model.backbone.model))
        self.trains(trained)
        self.keeps_the_backbones_scores(trained)
        self.follows_prompts(recommender)
        self.serves_what_it_trained(trained, recommender)

    def trains(self, trained):
        rows = json.loads((trained.run_dir / "training.json").read_text())
        assert {row["stage"] for row in rows} >= {1, 2, 3}
        assert all(math.isfinite(row["loss"]) for row in rows)
        steered = [row["loss"] for row in rows if row["stage"] == 3]
        assert steered[-1] < steered[0]
        assert f"{type(trained.model.backbone.model).__name__} is steered by" in trained.log
        name = "windows" if trained.model.backbone.causal else "one sample per prefix"
        assert f"trained on {name}" in trained.log

    @torch.no_grad()
    def keeps_the_backbones_scores(self, trained):
        model, split = trained.model.eval(), trained.data.test._dataset
        batch = split[np.arange(len(split))]
        own = model.backbone.model
        scores = model.full_sort_predict(batch)  # with prompt ids, all 0
        if getattr(model.backbone.steering, "single", False):
            assert torch.equal(scores, model.backbone.scores(batch))
            expected = own.predict(batch)
            found = scores.gather(1, batch[own.ITEM_ID][:, None])[:, 0]
            torch.testing.assert_close(found, expected)
        else:
            assert torch.equal(scores, own.full_sort_predict(batch).view(scores.shape))
        nothing = torch.zeros(len(batch), len(model.attributes))
        something = nothing.clone()
        something[::2, 0] = 1
        steered = model.steered_scores(batch, something, nothing)
        assert torch.equal(steered[1::2], scores[1::2])
        assert not torch.isclose(steered[::2], scores[::2]).all(dim=1).any()

    def follows_prompts(self, recommender):
        for value in VALUES:
            alone = share(recommender, None, value)
            assert share(recommender, f"I want something {value}", value) > max(0.8, alone)
            assert share(recommender, f"nothing {value} please", value) < min(0.2, alone)

    def serves_what_it_trained(self, trained, recommender):
        kept, loaded = trained.model.state_dict(), recommender.model.state_dict()
        assert kept.keys() == loaded.keys()
        assert all(torch.equal(kept[name], loaded[name]) for name in kept)
        memory = Recommender(trained.config, recommender.catalogue, trained.model.eval())
        for prompt in (None, "I want something red"):
            asked = (histories(), [prompt] * len(histories()))
            answers = zip(recommender.recommend(*asked), memory.recommend(*asked), strict=True)
            for found, expected in answers:
                # Where a weight lies in memory changes the last bit of a product.
                assert dict(found) == pytest.approx(dict(expected), rel=1e-5, abs=1e-6)
