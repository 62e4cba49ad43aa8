"""What a prompt moves, and above all what it does not."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from recbole_dpr.data.dataset import SEEN_LIST
from recbole_dpr.data.loading import load_data
from recbole_dpr.data.phrasebook import Phrasebook
from recbole_dpr.data.windows import PrefixWindows
from recbole_dpr.errors import DPRError
from recbole_dpr.model import reading
from recbole_dpr.model.build import build_dpr, make_encoder
from recbole_dpr.model.pretrained import READER_FILE, make_reader, save_reader
from recbole_dpr.model.reader import PromptReader
from recbole_dpr.model.stamp import Kept

EXACT = {"reader_precision": "float32"}


def build(tiny_config, name, **options):
    config = tiny_config(name, **options)
    data = load_data(config)
    book = Phrasebook.load("generic", data.whole.attributes.values)
    torch.manual_seed(0)
    model = build_dpr(config, data.train, book.called, data.whole.item_text, make_encoder(config))
    for parameter in model.parameters():  # as if trained: nothing is zero by its initial value
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model.eval(), data


def ask(data, ids):
    split = data.test._dataset
    rows = torch.arange(len(split))
    return split.with_prompts(rows, torch.as_tensor(ids).expand(len(split)))[np.arange(len(split))]


@pytest.fixture(params=["DPR-SASRec", "DPR-GRU4Rec"])
def built(request, tiny_config):
    return build(tiny_config, request.param)


@torch.no_grad()
def test_no_prompt_returns_the_backbones_scores_bit_for_bit(built):
    model, data = built
    batch = ask(data, 0)
    alone = model.backbone.model.full_sort_predict(batch)
    assert torch.equal(model.full_sort_predict(batch), alone)
    assert torch.equal(model.backbone_scores(batch), alone)


@torch.no_grad()
def test_an_intent_that_is_read_moves_scores_and_leaves_the_rows_beside_it_alone(built):
    model, data = built
    batch = ask(data, 0)
    include = torch.zeros(len(batch), 3)
    include[::2, 0] = 1
    scores = model.steered_scores(batch, include, torch.zeros_like(include))
    alone = model.backbone_scores(batch)
    assert torch.equal(scores[1::2], alone[1::2])
    assert not torch.isclose(scores[::2], alone[::2]).all(dim=1).any()


@torch.no_grad()
@pytest.mark.parametrize("name", ["DPR-SASRec", "DPR-FPMC", "DPR-DIN"])
def test_what_stands_in_the_history_can_be_left_out(tiny_config, name):
    plain, _ = build(tiny_config, name, MAX_ITEM_LIST_LENGTH=4)
    model, data = build(tiny_config, name, MAX_ITEM_LIST_LENGTH=4, exclude_history=True)
    batch = ask(data, 0)
    include = torch.zeros(len(batch), 3)
    include[::2, 0] = 1
    hidden = torch.zeros(len(batch), model.n_items, dtype=torch.bool)
    hidden.scatter_(1, batch[SEEN_LIST], True)  # beyond the four of the list, too
    assert int(hidden[:, 1:].sum()) == 11 * len(batch)
    for asked in (include, torch.zeros_like(include)):
        scores = model.steered_scores(batch, asked, torch.zeros_like(asked))
        expected = plain.steered_scores(batch, asked, torch.zeros_like(asked))
        assert torch.equal(scores, expected.masked_fill(hidden, -torch.inf))
    batch.interaction.pop(SEEN_LIST)  # as in a batch of another's making
    alone = model.backbone_scores(batch)
    assert alone.isinf()[:, 1:].sum(dim=1).tolist() == [4] * len(batch)


@torch.no_grad()
@pytest.mark.parametrize(("name", "stage"), [("DPR-SASRec", 1), ("DPR-SASRec", 3), ("DPR-FPMC", 3)])
def test_in_training_the_history_does_not_compete(tiny_config, name, stage):
    """The softmax loses competitors and keeps the targets, so the loss of every batch falls."""
    losses = []
    for exclude in (False, True):
        model, data = build(tiny_config, name, exclude_history=exclude)
        windows = PrefixWindows(tiny_config(name), data.train, 16, 64)
        batch = next(iter(windows))
        torch.manual_seed(1)
        if stage == 1:
            losses.append(model.calculate_loss(batch).item())
        else:
            losses.append(model.prompted_loss(batch, model.backbone_part(batch)).item())
    assert losses[1] < losses[0]


@torch.no_grad()
def test_strength_scales_what_a_prompt_moves(built):
    model, data = built
    batch = ask(data, 0)
    include = torch.zeros(len(batch), 3)
    include[:, 0] = 1
    alone = model.backbone_scores(batch)

    def scores(strength):
        model.strength = strength
        return model.steered_scores(batch, include, torch.zeros_like(include))

    assert torch.equal(scores(0.0), alone)
    assert torch.allclose(scores(2.0) - alone, 2 * (scores(1.0) - alone), atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("text", ["", "   ", "\n\t"])
def test_a_blank_prompt_asks_for_nothing(tiny_config, text):
    model, data = build(tiny_config, "DPR-SASRec")
    model.set_prompts(["", text])
    batch = ask(data, 1)
    assert torch.equal(model.full_sort_predict(batch), model.backbone_scores(batch))


@torch.no_grad()
def test_prompts_are_read_anew_when_the_reader_has_learned(tiny_config):
    model, _ = build(tiny_config, "DPR-SASRec", reader="trained")
    model.reader.requires_grad_(False)  # as in stage 3
    texts = ["", "something red please"]
    model.set_prompts(texts)
    model.reader.judge[-1].bias.copy_(torch.tensor([0.0, 1000.0, 0.0]))  # wants everything
    model.set_prompts(texts)
    include, _ = model.read_prompts(torch.tensor([0, 1]))
    assert not include[0].any() and include[1].all()


@torch.no_grad()
def test_several_readers_decide_together(tiny_config, tiny_encoder, greedy_reader, tmp_path):
    """The greedy reader wants everything, and is surer of it than the shipped one is of anything."""
    said, options = ["good morning", "nothing blue"], {"text_cache_dir": str(tmp_path)}
    shipped, _ = build(tiny_config, "DPR-SASRec", **options)
    for others in ([str(greedy_reader), "shipped"], ["shipped", str(greedy_reader)]):
        for encoder in (None, str(tiny_encoder)):
            both, _ = build(
                tiny_config, "DPR-SASRec", reader=others, text_encoder=encoder, **options
            )
            assert both.read(said)[0].all() and not both.read(said)[1].any()
    twice, _ = build(tiny_config, "DPR-SASRec", reader=["shipped", "shipped"], **options)
    twice.reader = shipped.reader = twice.other_readers[0][1]  # without the noise of `build`
    for one, two in zip(shipped.read(said), twice.read(said), strict=True):
        assert torch.equal(one, two)


@torch.no_grad()
def test_a_reader_over_the_default_encoder_may_lie_elsewhere(tiny_config, tiny_encoder, tmp_path):
    mine = shutil.copy(READER_FILE, tmp_path / "mine.safetensors")
    said, read = ["something red please", "nothing blue", "good morning"], []
    for options in ({}, {"reader": str(mine)}, {"reader": str(mine), "text_encoder": tiny_encoder}):
        options = {name: str(option) for name, option in options.items()}
        model, _ = build(tiny_config, "DPR-SASRec", **options)
        name = options.get("reader", "shipped")
        model.reader = make_reader(model.reader.names, EXACT, name).eval()
        read.append(torch.stack(model.read(said)))
    assert read[0].any() and torch.equal(read[0], read[1]) and torch.equal(read[0], read[2])


@torch.no_grad()
def test_what_a_learned_reader_reads_is_not_kept(tiny_config, tmp_path):
    model, _ = build(tiny_config, "DPR-SASRec", reader="trained", text_cache_dir=str(tmp_path))
    model.reader.requires_grad_(False)  # as in stage 3
    model.read(["something red please"])
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("intents")]


@torch.no_grad()
def test_a_second_run_reads_nothing_again(tiny_config, tmp_path, monkeypatch):
    texts = ["something red please", "", "nothing blue", "something red please"]
    first, second, third = (
        build(tiny_config, "DPR-SASRec", text_cache_dir=str(tmp_path))[0] for _ in range(3)
    )
    for model in (first, second, third):  # without the noise of `build`
        model.reader = make_reader(model.reader.names, EXACT, "shipped").eval()
    include, exclude = first.read(texts)
    assert include[0].any() and torch.equal(include[0], include[3]) and exclude[2].any()
    assert not include[1].any() and not exclude[1].any()
    with monkeypatch.context() as patched:
        patched.setattr(reading, "_read", lambda *_, **__: pytest.fail("read again"))
        for again, once in zip(second.read(texts), (include, exclude), strict=True):
            assert torch.equal(again, once)
    with monkeypatch.context() as patched:
        patched.setattr(reading, "CODE", "that of another version")
        patched.setattr(reading, "_read", lambda texts, **__: (include[:0], exclude[:0]))
        assert not len(second.read(["nothing blue"])[0])
    third.reader.judge[-1].bias.data += 1000 * torch.tensor([0.0, 1.0, 0.0])  # another reader
    assert third.read(texts)[0][0].all()


@torch.no_grad()
@pytest.mark.parametrize("reader", ["shipped", "trained"])
def test_prompts_are_read_alike_one_by_one_and_in_pieces(tiny_config, monkeypatch, reader):
    model, _ = build(tiny_config, "DPR-SASRec", reader=reader)
    texts = ["", "something red", "nothing blue please, and no green either", "hello", "red"]
    one_by_one = [torch.cat(side) for side in zip(*(model.read([t]) for t in texts), strict=True)]
    monkeypatch.setattr(reading, "READ_AT_ONCE", 2)
    for together, apart in zip(model.read(texts), one_by_one, strict=True):
        assert torch.equal(together, apart)


@torch.no_grad()
def test_one_dot_product_of_user_and_item_vectors_gives_the_same_scores(built):
    model, data = built
    batch = ask(data, 0)
    include, exclude = torch.zeros(2, len(batch), 3)
    include[:, 1] = exclude[:, 2] = 1
    items, lengths = batch[model.ITEM_SEQ], batch[model.ITEM_SEQ_LEN]
    where = torch.arange(items.shape[1]) == (lengths - 1)[:, None]
    states = model.backbone.states(items)
    shift, semantic = model.steer(states, items, where, include, exclude)
    users = torch.cat([states[where] + shift, semantic], dim=1)
    scores = model.steered_scores(batch, include, exclude)
    torch.testing.assert_close(users @ model.item_vectors().T, scores, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_batch_without_a_prompt_runs_the_backbone_once(tiny_config, monkeypatch):
    model, data = build(tiny_config, "DPR-BERT4Rec", loss_type="CE")
    runs, forward = [], model.backbone.model.forward
    monkeypatch.setattr(
        model.backbone.model, "forward", lambda *given: runs.append(1) or forward(*given)
    )
    model.set_prompts(["", "something red"])
    for ids, expected in ((0, 1), (1, 2)):
        runs.clear()
        model.full_sort_predict(ask(data, ids))
        assert len(runs) == expected


@torch.no_grad()
@pytest.mark.parametrize("part", ["backbone", "fusion", "semantic", "experts", "prompt"])
def test_scores_follow_the_weights(built, part):
    model, data = built
    batch = ask(data, 0)
    include, exclude = torch.zeros(2, len(batch), 3)
    include[:, 1] = 1
    before = model.steered_scores(batch, include, exclude)
    assert torch.equal(model.steered_scores(batch, include, exclude), before)
    part = getattr(model, part)
    for weight in (*part.parameters(), *part.buffers()):
        if weight.is_floating_point():
            weight.mul_(1.5)
    after = model.steered_scores(batch, include, exclude)
    model._steered = Kept()
    assert torch.equal(model.steered_scores(batch, include, exclude), after)
    assert not torch.allclose(before, after)


@torch.no_grad()
def test_steering_at_a_position_looks_at_no_later_item(built):
    model, _ = built
    items = torch.randint(1, 25, (4, 10))
    where = torch.zeros(4, 10, dtype=torch.bool)
    where[:, 5] = True
    include, exclude = torch.zeros(2, 4, 3)
    include[:, 0] = 1
    changed = items.clone()
    changed[:, 6:] = torch.randint(1, 25, (4, 4))
    found = [
        torch.cat(model.steer(model.backbone.states(x), x, where, include, exclude), dim=1)
        for x in (items, changed)
    ]
    torch.testing.assert_close(*found, atol=1e-5, rtol=1e-5)


def test_before_training_only_the_values_directions_move_the_user(tiny_config):
    config = tiny_config()
    data = load_data(config)
    called = [[value] for value in data.whole.attributes.values]
    model = build_dpr(config, data.train, called, data.whole.item_text, make_encoder(config))
    model.train()  # no dropout on them
    items = torch.randint(1, 25, (2, 10))
    where = torch.zeros(2, 10, dtype=torch.bool)
    where[:, -1] = True
    include, exclude = torch.eye(3)[:2], torch.eye(3)[1:]
    shift, semantic = model.steer(model.backbone.states(items), items, where, include, exclude)
    assert not shift.any()
    torch.testing.assert_close(semantic, model.semantic(include, exclude))


def test_semantic_item_vectors_are_kept_until_they_change(built):
    semantic = built[0].semantic
    with torch.no_grad():
        kept = semantic.items()
        assert semantic.items() is kept
    learned = semantic.items()
    assert learned.requires_grad and torch.equal(learned, kept)
    optimizer = torch.optim.Adam(semantic.parameters(), lr=0.1)
    learned.sum().backward()
    optimizer.step()
    with torch.no_grad():
        torch.testing.assert_close(semantic.items(), semantic.double().items().float())
        assert not torch.isclose(semantic.float().items(), kept).any()
    assert semantic.requires_grad_(False).items() is semantic.items()
    with torch.autocast("cpu", torch.bfloat16):  # kept in full: later passes may be without
        kept = semantic.float().items()
    torch.testing.assert_close(kept, semantic.project(semantic.item_text) + semantic.free.weight)


def test_the_steering_trains_neither_backbone_nor_reader(tiny_config):
    model, _ = build(tiny_config, "DPR-SASRec")
    model.freeze_backbone()
    model.train()
    assert not model.backbone.training and model.experts.training
    assert not any(p.requires_grad for p in model.backbone.parameters())
    assert not any(p.requires_grad for p in model.reader.parameters())


def test_router_weights_are_shares(built):
    model, _ = built
    model.set_prompts(["", "something red please", "nothing blue"])
    weights = model.router_weights(*model.read_prompts(torch.tensor([1, 2])))
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(2))


@torch.no_grad()
def test_the_shipped_reader_brings_its_encoder_whatever_encodes_the_items(
    tiny_config, tiny_encoder
):
    config = tiny_config("DPR-SASRec", reader="shipped", text_encoder=str(tiny_encoder))
    data = load_data(config)
    book = Phrasebook.load("generic", data.whole.attributes.values)
    model = build_dpr(config, data.train, book.called, data.whole.item_text, make_encoder(config))
    assert model.semantic.item_text.shape[1] == 16
    include, exclude = model.read(["something red please", "nothing blue"])
    values = data.whole.attributes.values
    red, blue = (torch.tensor([[value == v for v in values]]) for value in ("red", "blue"))
    nothing = torch.zeros_like(red)
    assert include.dtype == exclude.dtype == torch.bool
    assert torch.equal(include, torch.cat([red, nothing]))
    assert torch.equal(exclude, torch.cat([nothing, blue]))


@pytest.mark.parametrize(
    ("reader", "message"),
    [
        ("shiped", "there is no reader 'shiped'; did you mean 'shipped'"),
        (["shipped", "trained"], "readers that decide together come trained"),
        ([], r"reader=\[\] names none"),
        ("nowhere.safetensors", "there is no reader 'nowhere.safetensors'"),
        ("cut.safetensors", "cut.safetensors cannot be read as a reader"),
        ("nameless.safetensors", "is no reader over the encoder that it names"),
        ("gone.safetensors", "text encoder of gone.safetensors 'gone' is no folder"),
        ("other.safetensors", "is no reader over the encoder that it names"),
        ("unfit.safetensors", "unfit.safetensors was not trained over the text encoder"),
    ],
)
def test_a_reader_that_is_none_is_refused(
    tiny_config, tiny_encoder, tmp_path, monkeypatch, reader, message
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    narrow, wide = (PromptReader(torch.zeros(3, size), 4, upper=0) for size in (8, 16))
    save_reader(narrow, "other.safetensors", str(tiny_encoder))
    save_reader(wide, "nameless.safetensors")
    save_reader(wide, "gone.safetensors", "gone")
    changed = {"h.0.attn.c_attn.weight": (torch.ones(3, 1), torch.ones(1, 3))}
    save_reader(wide, "unfit.safetensors", str(tiny_encoder), changed)
    Path("cut.safetensors").write_bytes(Path("gone.safetensors").read_bytes()[:100])
    with pytest.raises(DPRError, match=message):
        build(tiny_config, "DPR-SASRec", reader=reader)
