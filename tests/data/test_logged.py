"""A data set's own prompts: what users really asked."""

import json
from pathlib import Path

import pytest

from recbole_dpr import run_recbole_dpr
from recbole_dpr.data.dataset import LOGGED_FIELD
from recbole_dpr.data.draws import target_intents
from recbole_dpr.data.intent import Intent
from recbole_dpr.data.loading import load_data
from recbole_dpr.data.logged import LoggedIntents
from recbole_dpr.data.prompts import PromptTable
from recbole_dpr.data.tasks import logged_task
from recbole_dpr.data.windows import LOGGED_LIST, TARGET_LIST, WindowLoader
from recbole_dpr.errors import DPRError

HEADER = "prompt_id:token\tprompt:token_seq\tinclude:token_seq\texclude:token_seq\n"
ROWS = (
    "p1\tmake it red\tred\t\np2\tnothing blue, nothing green\t\tblue green\np3\thello there\t\t\n"
)


@pytest.fixture
def log(data_path):
    """Give every third interaction of `tiny` a prompt, and write the file of prompts."""
    path = data_path / "tiny" / "tiny.inter"

    def write(prompts=HEADER + ROWS, ids=("p1", "p2", "p3"), column="prompt_id:token"):
        head, *rows = path.read_text().splitlines()
        lines = [f"{head}\t{column}"]
        for n, row in enumerate(rows):
            lines.append(f"{row}\t{ids[n // 3 % len(ids)] if n % 3 == 2 else ''}")
        path.write_text("\n".join(lines) + "\n")
        if prompts is not None:
            (data_path / "tiny" / "tiny.prompt").write_text(prompts)

    return write


def test_prompts_stand_at_the_interactions_that_they_came_with(log, tiny_config):
    log()
    data = load_data(tiny_config())
    values = data.whole.attributes.values
    red, blue, green = (values.index(name) for name in ("red", "blue", "green"))
    asked = dict(zip(("p1", "p2", "p3"), data.whole.logged[1:], strict=True))
    assert data.whole.logged[0] == ("", Intent())
    assert asked["p1"] == ("make it red", Intent((red,), ()))
    assert asked["p2"][1] == Intent((), (blue, green))
    assert asked["p3"] == ("hello there", Intent())
    # The twelfth interaction of a user, its test target, is the last of four triples.
    numbers = data.test._dataset.inter_feat[LOGGED_FIELD]
    assert numbers.bool().all()
    assert not data.valid._dataset.inter_feat[LOGGED_FIELD].any()


def test_the_task_asks_each_row_its_own_prompt(log, tiny_config):
    log()
    data = load_data(tiny_config())
    split, prompts = data.test._dataset, PromptTable(len(data.whole.attributes))
    task = logged_task(split, data.whole.logged, prompts, seed=1)
    texts = [data.whole.logged[n][0] for n in split.inter_feat[LOGGED_FIELD].tolist()]
    assert [prompts.texts[i] for i in task.prompt_ids.tolist()] == texts
    assert len(task.rows) == len(split) and task.left_out == 0
    some = logged_task(split, data.whole.logged, prompts, seed=1, n_rows=7)
    assert len(some.rows) == 7 == len(set(some.rows.tolist())) and some.left_out == 0
    texts = [texts[row] for row in some.rows.tolist()]
    assert [prompts.texts[i] for i in some.prompt_ids.tolist()] == texts


def test_a_prompt_may_hold_any_character(log, tiny_config):
    said = "red \u2028 or\u0085so\x0b"
    log(prompts=HEADER + ROWS.replace("make it red", said))
    assert said.strip() in [text for text, _ in load_data(tiny_config()).whole.logged]


def test_a_value_that_holds_a_space_stands_alone_in_its_cell(log, tiny_config, data_path):
    items = data_path / "tiny" / "tiny.item"
    text = items.read_text().replace("colour:token_seq", "colour:token")
    items.write_text(text.replace("red green", "bright red"))
    log(HEADER + "p1\tmake it red\tbright red\tred blue\n", ids=("p1",))
    data = load_data(tiny_config()).whole
    bright, red, blue = (data.attributes.values.index(v) for v in ("bright red", "red", "blue"))
    assert data.logged[1][1] == Intent((bright,), (red, blue))


def test_a_target_that_came_with_a_prompt_is_trained_with_it(log, tiny_config):
    log()
    config = tiny_config()
    data = load_data(config)
    attributes, logged = data.whole.attributes, data.whole.logged
    known = LoggedIntents.of(logged, len(attributes))
    batch = next(iter(WindowLoader(config, data.train, 64)))
    items, targets, numbers = (batch[f] for f in ("item_id_list", TARGET_LIST, LOGGED_LIST))
    assert ((numbers > 0) <= (targets > 0)).all() and numbers.any()
    mix = config["task_mix"]
    where, include, exclude = target_intents(attributes, items, targets, mix, numbers, known)
    for number, (_, intent) in list(enumerate(logged))[1:]:
        rows = numbers[where] == number
        if intent == Intent():  # "hello there" asks for nothing, so these are not steered
            assert not rows.any()
        else:
            wanted, unwanted = known.include[number], known.exclude[number]
            assert rows.any()
            assert (include[rows] == wanted).all() and (exclude[rows] == unwanted).all()


def test_a_run_trains_with_them_and_reports_them(log, tiny_options):
    log()
    result = run_recbole_dpr("DPR-SASRec", "tiny", config_dict=tiny_options)
    metrics = json.loads((Path(result["run_dir"]) / "metrics.json").read_text())
    figures = metrics["tasks_logged"]["logged"]
    assert set(figures) >= {"DPR", "backbone", "filter"}
    assert figures["DPR"]["users"] == 40
    assert figures["filter"]["satisfied@10"] > figures["backbone"]["satisfied@10"]
    assert "logged prompts" in (Path(result["run_dir"]) / "report.md").read_text()


def test_what_a_file_leaves_open_is_read(log, tiny_options):
    log("prompt_id:token\tprompt:token_seq\na\tI want red\n", ids=("a",))
    result = run_recbole_dpr("DPR-SASRec", "tiny", config_dict=tiny_options)
    metrics = json.loads((Path(result["run_dir"]) / "metrics.json").read_text())
    # The shipped reader knows what "I want red" asks for, so the filter leaves red things alone on top.
    assert metrics["tasks_logged"]["logged"]["filter"]["satisfied@10"] == 1


def test_interactions_as_recbole_sees_them_have_no_prompt(log, tiny_config):
    log()
    data = load_data(tiny_config())
    for split in (data.train, data.valid._dataset, data.test._dataset):
        assert not split.inter_feat["prompt_id"].any()


def test_a_file_that_says_no_intents_leaves_them_open(log, tiny_config):
    log("prompt_id:token\tprompt:token_seq\na\tsomething red\n", ids=("a",))
    assert load_data(tiny_config()).whole.logged[1] == ("something red", None)


@pytest.mark.parametrize(
    "prompts, message",
    [
        ("prompt_id:token\ttext:token_seq\n", r"tiny.prompt, line 1: there is no column 'prompt:"),
        (HEADER + "p1\tmake it red\tred\n", r"line 2: 3 cells under 4 columns"),
        (HEADER + ROWS + "p1\tagain\t\t\n", r"line 5: the id p1 was given"),
        (HEADER + "\tmake it red\tred\t\n", r"line 2: the prompt has no id"),
        (HEADER + "p1\t \tred\t\n", r"line 2: prompt p1 has no text"),
        (HEADER + "p1\tmake it red\tredd\t\n", r"line 2: no item has the value 'redd'.*red"),
        (HEADER + "p1\tmake it red\tred\tred\n", r"line 2: 'red' is both wanted and unwanted"),
        (HEADER + "p1\tmake it red\tred\t\n", r"prompt 'p2', which .* does not hold"),
        (None, r"there is no file .*tiny.prompt"),
        ("", r"line 1: there are no columns"),
        ("\ufeff" + HEADER + ROWS, r"line 1: .*--encoding=utf-8-sig"),
    ],
)
def test_what_is_wrong_is_named_by_file_and_line(log, tiny_config, prompts, message):
    log(prompts)
    with pytest.raises(DPRError, match=message):
        load_data(tiny_config())


def test_a_file_of_prompts_needs_interactions_that_name_them(log, tiny_config):
    log(column="remark:token")
    with pytest.raises(DPRError, match="no column prompt_id:token"):
        load_data(tiny_config())
