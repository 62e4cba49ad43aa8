"""How many prompts are read as they were meant: counted by task and phrases, and shown where not."""

from types import SimpleNamespace

import pytest
import torch

from recbole_dpr.data.intent import Intent, in_words
from recbole_dpr.data.prompts import PromptTable
from recbole_dpr.data.tasks import PromptedTask
from recbole_dpr.evaluation.reading import reading
from recbole_dpr.evaluation.tables import read_more

VALUES = ["comedy", "war"]


@pytest.fixture
def prompts():
    table = PromptTable(2)
    table.add("a comedy", Intent((0,)))
    table.add("never war", Intent((), (1,)))
    table.add("a comedy, no war", Intent((0,), (1,)))
    return table


def task(kind, phrases, *ids):
    rows = torch.arange(len(ids))
    return PromptedTask(kind, phrases, rows, torch.tensor(ids, dtype=torch.long), 0, rows.bool())


def hears_wishes_alone(prompts):
    def read(ids):
        return prompts.include[ids], torch.zeros(len(ids), 2).bool()

    reader = SimpleNamespace(precision=torch.bfloat16)
    return SimpleNamespace(read_prompts=read, reader=reader)


def test_the_share_read_exactly_right_and_what_is_not(prompts):
    tasks = [
        task("standard", "", 0),
        task("positive", "unseen", 1, 1),
        task("compound", "unseen", 1, 3, 3, 2),
        task("negative", "hard", 2),
        task("negative", "train"),
        task("logged", "logged", 2),
    ]
    found = reading(hears_wishes_alone(prompts), tasks, prompts, VALUES)
    assert found["arithmetic"] == "bfloat16"
    assert found["exact"] == {
        "tasks": {"positive": 1.0, "compound": 0.25},
        "tasks_hard_phrases": {"negative": 0.0},
        "tasks_logged": {"logged": 0.0},
    }
    assert found["hard_values"] == []  # war is asked for four times alone
    tasks.append(task("negative", "unseen", 2))
    hears = hears_wishes_alone(prompts)
    assert reading(hears, tasks, prompts, VALUES)["hard_values"] == ["war"]
    assert [row["prompt"] for row in found["misread"]] == [
        "a comedy, no war",
        "never war",
        "never war",  # logged
    ]
    assert in_words(found["misread"][0]["meant"]) == "include comedy; exclude war"
    assert in_words(found["misread"][1]["read"]) == ""


def test_a_line_says_what_may_help_where_little_is_read():
    assert not read_more({"exact": {"tasks": {"positive": 0.98, "negative": 0.9}}})
    exact = {"tasks": {"positive": 0.98, "compound": 0.69}}
    larger, named = read_more({"exact": exact, "hard_values": ["All", "New"]})
    assert "--reader=[shipped,large]" in larger
    assert "misread: All, New; another name may help" in named
