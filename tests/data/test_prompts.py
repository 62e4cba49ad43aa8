"""Prompts are drawn by the protocol, for evaluation and for training."""

import pytest
import torch

from recbole_dpr.data.draws import draw_intents, target_intents
from recbole_dpr.data.intent import Intent
from recbole_dpr.data.loading import load_data
from recbole_dpr.data.phrasebook import Phrasebook
from recbole_dpr.data.prompts import PromptTable, made_prompts
from recbole_dpr.data.tasks import prompted_tasks


@pytest.fixture
def drawn(tiny_config):
    data = load_data(tiny_config())
    split = data.test._dataset
    prompts = PromptTable(len(split.attributes))
    book = Phrasebook.load("generic", split.attributes.values)
    return split, prompts, {(t.name, t.phrases): t for t in prompted_tasks(split, book, prompts, 5)}


def test_one_prompt_per_user_asks_for_what_the_protocol_says(drawn):
    split, prompts, tasks = drawn
    matrix = split.attributes.matrix
    for phrases in ("unseen", "train"):
        for name in ("positive", "negative", "compound"):
            task = tasks[name, phrases]
            assert len(task.rows) + task.left_out == len(split) and len(task.rows)
            for row, prompt in zip(task.rows.tolist(), task.prompt_ids.tolist(), strict=True):
                interaction = split[torch.tensor([row])]
                has = matrix[interaction["item_id"][0]]
                past = matrix[interaction["item_id_list"][0]].any(dim=0)
                intent = prompts.intents[prompt]
                assert intent.kind == name
                assert all(has[v] for v in intent.include)
                assert all(past[v] and not has[v] for v in intent.exclude)
                assert prompts.texts[prompt]


def test_seen_and_unseen_phrases_ask_for_the_same(drawn):
    _, prompts, tasks = drawn
    for name in ("positive", "negative", "compound"):
        intents = [
            [prompts.intents[i] for i in tasks[name, phrases].prompt_ids.tolist()]
            for phrases in ("unseen", "train")
        ]
        assert intents[0] == intents[1]


def test_a_sample_is_asked_what_all_are_asked(tiny_config, drawn):
    split, prompts, tasks = drawn
    book = Phrasebook.load("generic", split.attributes.values)
    fewer = PromptTable(len(split.attributes))
    _, *sample = prompted_tasks(split, book, fewer, 5, only="train", n_rows=10)
    assert [task.phrases for task in sample] == ["train"] * 3
    assert len(fewer) == 1 + sum(len(task.rows) for task in sample)  # nothing else is made
    for task in sample:
        assert 0 < len(task.rows) == 10 - task.left_out
        everyone = tasks[task.name, "train"]
        asked = dict(zip(everyone.rows.tolist(), everyone.prompt_ids.tolist(), strict=True))
        for row, prompt in zip(task.rows.tolist(), task.prompt_ids.tolist(), strict=True):
            assert fewer.intents[prompt] == prompts.intents[asked[row]]
    again = PromptTable(len(split.attributes))
    prompted_tasks(split, book, again, 5, only="train", n_rows=10)
    assert again.texts == fewer.texts


def test_the_standard_task_has_no_prompt(drawn):
    split, prompts, tasks = drawn
    task = tasks["standard", ""]
    assert len(task.rows) == len(split) and not task.prompt_ids.any()
    assert prompts.texts[0] == "" and prompts.intents[0] == Intent()


def test_the_task_seed_decides_the_prompts_and_the_training_seed_does_not(tiny_config):
    def texts(seed, task_seed):
        split = load_data(tiny_config(seed=seed)).test._dataset
        prompts = PromptTable(len(split.attributes))
        torch.manual_seed(seed)
        prompted_tasks(
            split, Phrasebook.load("generic", split.attributes.values), prompts, task_seed
        )
        return prompts.texts

    assert texts(1, 5) == texts(2, 5) != texts(1, 6)


def test_on_habit_prompts_are_the_half_with_the_larger_share(drawn):
    split, prompts, tasks = drawn
    task = tasks["positive", "unseen"]
    lists = split[task.rows]
    value = prompts.include[task.prompt_ids].float().argmax(dim=1)
    has = split.attributes.matrix[lists["item_id_list"], value[:, None]]
    share = has.sum(dim=1) / lists["item_length"]
    assert share[task.on_habit].min() >= share[~task.on_habit].max()


def test_unwanted_values_are_drawn_by_their_frequency_in_the_history():
    torch.manual_seed(0)
    target = torch.tensor([[True, False, False, False]]).repeat(20_000, 1)
    counts = torch.tensor([[9, 3, 1, 0]]).repeat(20_000, 1)
    wanted, unwanted = draw_intents(target, counts)
    assert (wanted == 0).all()
    share = unwanted.bincount(minlength=4) / len(unwanted)
    assert share.tolist() == pytest.approx([0, 0.75, 0.25, 0], abs=0.02)


def test_a_target_without_values_and_a_history_without_others_give_no_intent():
    wanted, unwanted = draw_intents(torch.zeros(1, 3, dtype=torch.bool), torch.zeros(1, 3))
    assert wanted.item() == unwanted.item() == -1


def test_training_intents_fit_their_targets_and_look_at_no_later_item(tiny_config):
    torch.manual_seed(0)
    attributes = load_data(tiny_config()).whole.attributes
    items = torch.randint(1, 25, (30, 10))
    targets = torch.randint(0, 25, (30, 10))
    mix = {"positive": 1.0, "negative": 1.0, "compound": 1.0}
    where, include, exclude = target_intents(attributes, items, targets, mix)
    assert where.sum() == len(include) == len(exclude) and not where[targets == 0].any()
    at = where.nonzero()
    kinds = set()
    for (row, position), wanted, unwanted in zip(at.tolist(), include, exclude, strict=True):
        has = attributes.matrix[targets[row, position]]
        past = attributes.matrix[items[row, : position + 1]].any(dim=0)
        assert (has | ~wanted.bool()).all()
        assert (past & ~has | ~unwanted.bool()).all()
        kinds.add((int(wanted.sum()), int(unwanted.sum())))
    assert kinds == {(1, 0), (0, 1), (1, 1)}


def test_made_prompts_hold_every_kind(tiny_config):
    import numpy as np

    book = Phrasebook.load("generic", ["red", "blue", "green"])
    table = made_prompts(book, 3, 400, np.random.default_rng(0))
    kinds = {intent.kind for intent in table.intents[1:]}
    assert kinds == {"positive", "negative", "compound", "neutral"}
    assert any(len(intent.include) == 2 for intent in table.intents)
