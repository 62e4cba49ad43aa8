"""The pages say what the figures say; the examples show what was really ranked."""

from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from recbole.data.interaction import Interaction

from recbole_dpr.evaluation.examples import Example, collect_examples
from recbole_dpr.evaluation.plots import plot_router, plot_systems, plot_training
from recbole_dpr.evaluation.report import write_report
from recbole_dpr.evaluation.tables import summary_table


def figures(ndcg, satisfied=1.0, violation=0.0, users=940):
    return {
        "ndcg@10": ndcg,
        "recall@10": 2 * ndcg,
        "satisfied@10": satisfied,
        "violation@10": violation,
        "users": users,
    }


@pytest.fixture
def metrics():
    prompted = {
        "DPR": figures(0.22, 0.99, 0.004),
        "backbone": figures(0.05, 0.24, 0.19),
        "filter": figures(0.2),
    }
    return {
        "model": "DPR-SASRec",
        "dataset": "ml-100k",
        "seed": 2020,
        "tasks": {
            "standard": {"DPR": figures(0.06), "backbone": figures(0.06)},
            "positive": prompted,
        },
        "tasks_seen_phrases": {"positive": {"DPR": figures(0.236), "filter": figures(0.2)}},
        "slices": {"positive": {"on_habit": prompted, "off_habit": {"DPR": {"users": 0}}}},
        "left_out": {"standard": 0, "positive": 3},
        "standard_error": {"standard": {}, "positive": {"DPR": 0.0123}},
        "seconds": {"stage1": 60.5, "evaluate": 4.5, "total": 180.0},
    }


HISTORY = [
    {"stage": stage, "title": title, "epoch": epoch, "loss": loss, "valid": valid, "seconds": 4.0}
    for stage, title, epoch, loss, valid in [
        (1, "collaborative pre-training", 0, 7.0, {"ndcg@10": 0.03}),
        (1, "collaborative pre-training", 1, 6.0, {"ndcg@10": 0.05}),
        (2, "alignment", 0, 3.0, None),
    ]
]
ROUTER = {"positive": [0.8, 0.2], "negative": [0.1, 0.9]}
EXAMPLE = Example(
    task="positive",
    user="196",
    prompt="something | funny",
    history=["Kolya (1996)", "Gandhi (1982)"],
    target="Mouse Hunt (1997)",
    rank_before=34,
    rank_after=2.5,
    before=["Titanic (1997) (Drama)"],
    after=["✓ Clueless (1995) (Comedy)"],
)


def test_the_console_table_gives_figures_and_the_ratio_to_the_filter(metrics):
    table = [line.split("  ") for line in summary_table(metrics).splitlines() if line]
    table = [[cell.strip() for cell in row if cell.strip()] for row in table]
    assert table[0][:5] == ["task", "system", "sees", "NDCG@10", "x filter"]
    positive = [row for row in table if row[0] == "positive"]
    cells = "positive|DPR|the prompt's text|0.2200 ± 0.0123|1.100|0.4400|99.00%|0.40%|940"
    assert "|".join(positive[0]) == cells
    assert positive[1][4] == "0.250"
    # Without a prompt there is nothing to satisfy or violate, and no filter to compare with.
    standard = next(row for row in table if row[0] == "standard")
    assert standard[2] == "no prompt"
    assert standard[4:] == ["-", "0.1200", "-", "-", "940"]


def test_the_console_shows_logged_prompts_and_the_delta_auc_where_measured(metrics):
    metrics["tasks_logged"] = {"standard": {}, "logged": metrics["tasks"]["positive"]}
    by_system = {"DPR": {"mean": 0.25}, "filter": {"mean": 0.5}}
    metrics["delta_auc"] = {"increase": by_system, "decrease": by_system, "users": 5}
    text = summary_table(metrics)
    assert "\nlogged    DPR" in text
    assert text.endswith("increase / decrease: DPR +0.250 / +0.250, filter +0.500 / +0.500")


def test_the_table_takes_the_longest_list_where_10_was_not_measured(metrics):
    five = {key.replace("@10", "@5"): value for key, value in figures(0.1).items()}
    metrics["tasks"] = {"positive": {"filter": {**five, "ndcg@1": 0.5}}}
    assert "NDCG@5" in summary_table(metrics).splitlines()[0]


def test_the_report_tells_a_stranger_what_to_know(tmp_path, metrics):
    path = write_report(
        tmp_path,
        metrics,
        command="python run_recbole_dpr.py --model=DPR-SASRec --dataset=ml-100k",
        training=HISTORY,
        router=ROUTER,
        examples=[EXAMPLE],
        versions={"torch": "2.13.0"},
    )
    text = path.read_text(encoding="utf-8")
    plain = " ".join(text.split())
    assert "are told the true attributes" in plain
    assert "sees nothing but the prompt's text" in plain
    assert (
        "| positive | DPR | the prompt's text | 0.2200 ± 0.0123 | 1.100 | 0.4400 | 99.00% | 0.40% "
        "| 940 |" in text
    )
    assert "| positive | DPR | the prompt's text | 0.2360 | 1.180 |" in text  # seen phrases
    assert "| positive, off habit | DPR | the prompt's text | - | - | - | - | - | 0 |" in text
    for fact in ("- positive: 3", "- total: 180.0", "- torch: 2.13.0", "(seed 2020)"):
        assert fact in text
    assert "python run_recbole_dpr.py --model=DPR-SASRec --dataset=ml-100k" in text
    for link in ("plots/systems.png", "plots/training.png", "plots/router.png", "examples.md"):
        assert f"({link})" in text
        assert (tmp_path / link).stat().st_size > 0


def test_the_report_says_what_was_read(tmp_path, metrics):
    meant, read = {"include": ["War"], "exclude": []}, {"include": [], "exclude": ["War"]}
    misread = {"task": "positive", "prompt": "sooner | war", "meant": meant, "read": read}
    exact = {"tasks": {"positive": 0.5}, "tasks_seen_phrases": {"positive": 0.75}}
    unheard = {**misread, "prompt": "battles", "read": {"include": [], "exclude": []}}
    metrics["reading"] = {"exact": exact, "misread": [misread, unheard]}
    assert summary_table(metrics).splitlines()[-2] == "Read exactly right: positive 50.0%"
    text = write_report(tmp_path, metrics, command="run", examples=[EXAMPLE]).read_text()
    assert "| unseen | 50.0% |" in text and "| for training | 75.0% |" in text
    examples = (tmp_path / "examples.md").read_text()
    assert "| positive | sooner \\| war | include War | exclude War |" in examples
    assert "| positive | battles | include War | nothing |" in examples


def test_a_report_of_a_plain_model_names_only_what_it_has(tmp_path, metrics):
    metrics["tasks"]["positive"].pop("DPR")
    metrics["standard_error"]["positive"] = {}
    text = write_report(tmp_path, metrics, command="run").read_text(encoding="utf-8")
    assert "training.png" not in text
    assert "examples.md" not in text
    assert "| positive | filter | true attributes | 0.2000 | 1.000 |" in text


def test_the_examples_page_shows_before_and_after(tmp_path, metrics):
    write_report(tmp_path, metrics, command="run", examples=[EXAMPLE])
    text = (tmp_path / "examples.md").read_text(encoding="utf-8")
    assert '## User 196, positive: "something \\| funny"' in text  # a bar would break the table
    assert "History, newest last: Kolya (1996); Gandhi (1982)." in text
    assert "at rank 34 without and 2.5 with the prompt" in text
    assert "| 1 | Titanic (1997) (Drama) | ✓ Clueless (1995) (Comedy) |" in text


class Catalogue:
    """Stand-in for PromptDataset: ten items, even ones funny; user u has seen items 1 ... u + 1."""

    uid_field, iid_field = "user_id", "item_id"

    def __init__(self, prompt_ids=None, rows=None):
        self.rows, self.prompt_ids = rows, prompt_ids
        matrix = torch.zeros(11, 1).bool()
        matrix[2::2] = True
        self.titles = [f"title {item}" for item in range(11)]
        self.attributes = SimpleNamespace(
            fields=["genre"],
            values=["Comedy"],
            matrix=matrix,
            allowed=lambda include, exclude: matrix.T.repeat(len(include), 1),
            forbidden=lambda exclude: torch.zeros(len(exclude), 11).bool(),
        )

    def with_prompts(self, rows, prompt_ids):
        return Catalogue(prompt_ids, rows)

    def __getitem__(self, index):
        users = self.rows[index]
        seen = torch.arange(1, 11).repeat(len(users), 1)
        return Interaction(
            {
                "user_id": users,
                "item_id": users + 2,
                "item_id_list": seen * (seen <= users[:, None] + 1),
                "item_length": users + 1,
                "prompt_id": self.prompt_ids[index],
            }
        )

    @staticmethod
    def id2token(field, token):
        return f"user-{token}"


class Model:
    """Prefers low ids; a promptable twin answers every prompt with even ids first."""

    def eval(self):
        return self

    def full_sort_predict(self, interaction):
        return -torch.arange(11.0).repeat(len(interaction), 1)


class Promptable(Model):
    backbone_scores = Model.full_sort_predict

    def full_sort_predict(self, interaction):
        scores = self.backbone_scores(interaction)
        scores[:, 2::2] += 100
        return scores


@dataclass
class Task:
    name: str
    phrases: str
    rows: torch.Tensor
    prompt_ids: torch.Tensor


CONFIG = {
    "device": "cpu",
    "PROMPT_ID_FIELD": "prompt_id",
    "ITEM_ID_FIELD": "item_id",
    "LIST_SUFFIX": "_list",
    "ITEM_LIST_LENGTH_FIELD": "item_length",
}
PROMPTS = SimpleNamespace(
    texts=["", "make me laugh"],
    include=torch.tensor([[False], [True]]),
    exclude=torch.tensor([[False], [False]]),
)
ROWS = torch.arange(8)
TASKS = [
    Task("standard", "", ROWS, torch.zeros(8).long()),
    Task("positive", "unseen", ROWS, torch.ones(8).long()),
    Task("positive", "train", ROWS, torch.ones(8).long()),
]


@pytest.mark.parametrize("model", [Model(), Promptable()])
def test_examples_show_what_was_ranked_before_and_after(model):
    """A plain model's "after" is the filter, which here is what the promptable one does."""
    examples = collect_examples(model, TASKS, CONFIG, Catalogue(), PROMPTS, per_task=2, k=4)
    assert [example.task for example in examples] == ["positive", "positive"]
    for example in examples:
        user = int(example.user.removeprefix("user-"))
        target = user + 2
        assert example.prompt == "make me laugh"
        assert example.history == [f"title {item}" for item in range(1, user + 2)][-10:]
        assert example.target == f"title {target}"
        assert example.rank_before == target
        assert example.rank_after == (target / 2 if target % 2 == 0 else 5 + (target + 1) / 2)
        assert example.before == [
            "title 1",
            "✓ title 2 (Comedy)",
            "title 3",
            "✓ title 4 (Comedy)",
        ]
        assert example.after == [f"✓ title {item} (Comedy)" for item in (2, 4, 6, 8)]


def test_examples_do_not_show_what_is_never_recommended():
    class Excluding(Promptable):
        def full_sort_predict(self, interaction):
            scores = super().full_sort_predict(interaction)
            scores[:, 3:] = -torch.inf
            return scores

    (example, *_) = collect_examples(Excluding(), TASKS, CONFIG, Catalogue(), PROMPTS, k=4)
    assert len(example.before) == 4
    assert example.after == ["✓ title 2 (Comedy)", "title 1"]


def test_examples_are_drawn_without_looking_at_the_scores():
    drawn = [
        [e.user for e in collect_examples(model, TASKS, CONFIG, Catalogue(), PROMPTS, k=3)]
        for model in (Model(), Promptable(), Promptable())
    ]
    assert drawn[0] == drawn[1] == drawn[2]
    assert len(set(drawn[0])) == 2


def test_examples_of_a_small_catalogue_show_all_of_it():
    (example, *_) = collect_examples(Model(), TASKS, CONFIG, Catalogue(), PROMPTS, k=50)
    assert len(example.before) == len(example.after) == 10


def test_plots_are_pictures_of_about_1200_pixels(tmp_path, metrics):
    paths = [
        plot_systems(metrics, tmp_path / "deep" / "systems.png"),
        plot_training(HISTORY, tmp_path / "training.png"),
        plot_router(ROUTER, tmp_path / "router.png"),
    ]
    for path in paths:
        with Image.open(path) as image:
            assert image.width == 1200
            assert len(image.convert("RGB").getcolors(maxcolors=10**6)) > 20  # something was drawn


def test_plots_leave_pyplot_alone(tmp_path, metrics):
    from matplotlib import pyplot

    plot_systems(metrics, tmp_path / "systems.png")
    assert pyplot.get_fignums() == []
