"""python -m recbole_dpr: every command, and what wrong calls are told."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import recbole_dpr
import run_recbole_dpr
from recbole_dpr.commands import main

HISTORY = ["i1", "i4", "i7", "i2"]


@pytest.fixture(scope="module")
def run(trained_run):
    return trained_run["run_dir"]


def said(capsys, *arguments):
    assert main(arguments) == 0
    return capsys.readouterr().out


def test_help_is_quick_and_lists_the_commands():
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "recbole_dpr", "--help"], capture_output=True, text=True, check=True
    )
    assert time.perf_counter() - start < 5, "did it import torch? (0.1 s where it did not)"
    for command in ("train", "evaluate", "recommend", "export", "serve", "info"):
        assert f"\n    {command}" in done.stdout


def test_train_is_the_script(monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(run_recbole_dpr, "main", lambda argv: calls.append(argv) or 0)
    assert main(["train", "--model=DPR-SASRec", "--seed=1"]) == 0
    assert calls == [["--model=DPR-SASRec", "--seed=1"]]


def test_evaluate_gives_the_runs_own_figures(capsys, run, trained_run):
    found = json.loads(said(capsys, "evaluate", run, "--json"))
    for task, systems in trained_run["tasks"].items():
        for system, figures in systems.items():
            assert found["tasks"][task][system] == pytest.approx(figures, abs=1e-4)
    assert "positive" in said(capsys, "evaluate", run, "--show_progress=False")


def test_evaluate_may_ask_a_sample(capsys, run, trained_run):
    found = json.loads(said(capsys, "evaluate", run, "--json", "--prompted_test_size=7"))
    asked = 7 - found["left_out"]["positive"]
    hits = found["tasks"]["positive"]["filter"]["hit@10"] * asked
    assert hits == pytest.approx(round(hits), abs=1e-4)  # so many users, and no more
    standard = trained_run["tasks"]["standard"]["DPR"]  # which nobody's prompt makes slow
    assert found["tasks"]["standard"]["DPR"] == pytest.approx(standard, abs=1e-4)


def test_recommend_prints_what_the_recommender_gives(capsys, run):
    asked = ["recommend", run, "--history", *HISTORY, "--prompt", "something red please"]
    (expected,) = recbole_dpr.load(run).recommend([HISTORY], ["something red please"], k=3)
    answer = json.loads(said(capsys, *asked, "--k=3", "--json"))
    assert [row["item"] for row in answer["items"]] == [token for token, _ in expected]
    assert (answer["read"]["include"], answer["read"]["exclude"]) == (["red"], [])
    text = said(capsys, *asked, "--k=3", "--explain")
    assert "read as: include red" in text and "Thing number" in text and "semantic" in text
    text = said(capsys, *asked, "--prompt", "no red", "--exclude_history", "--include", "blue")
    assert "read as: include blue; exclude red" in text


def test_recommend_reads_with_another_reader(capsys, run, greedy_reader):
    asked = ["recommend", run, "--history", *HISTORY, "--prompt", "good morning"]
    assert "read as: nothing that can be steered" in said(capsys, *asked)
    assert "read as: include " in said(capsys, *asked, "--reader", str(greedy_reader))
    assert "read as: include " in said(capsys, *asked, "--reader", "shipped", str(greedy_reader))


def test_flags_beside_json_lines_are_refused(capsys, run):
    assert main(["recommend", run, "-", "--k", "2"]) == 2
    assert "with - each request says its own k: leave --k out" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["n_experts=9", "MAX_ITEM_LIST_LENGTH=80", "seed=7"])
def test_evaluate_refuses_what_only_a_training_hears(capsys, run, option):
    assert main(["evaluate", run, f"--{option}", "--prompted_test_size=3"]) == 2
    assert (
        f"error: {option}: a finished run is measured as it was trained" in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    "heard", [["--state=error"], ["--topk=[5]", "--valid_metric=NDCG@5"], ["--checkpoint_dir=x"]]
)
def test_evaluate_takes_what_is_not_of_the_training_alone(capsys, run, heard):
    assert "positive" in said(capsys, "evaluate", run, "--prompted_test_size=3", *heard)


def feed(monkeypatch, content):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), "utf-8"))


def test_json_lines_are_answered_in_order_with_an_error_for_each_bad_one(capsys, run, monkeypatch):
    wrong = {
        "{": "the request is no JSON",
        "[" * 100_000: "the request is no JSON",
        "7": "must be a JSON object",
        "{}": 'the field "history" is missing',
        '{"history": ["i1"], "promt": "red"}': "unknown field 'promt'; did you mean 'prompt'",
        '{"history": "i1"}': '"history" must be a list of item tokens',
        '{"history": [1]}': '"history" must be a list of item tokens',
        '{"history": []}': "at least one item token",
        '{"history": ["x"]}': "which is no item of tiny",
        '{"history": ["i1"], "prompt": 7}': '"prompt" must be a text',
        '{"history": ["i1"], "prompt": [["a"]]}': "prompt 0 must be a text",
        '{"history": ["i1"], "k": 1e3}': '"k" must be a whole number',
        '{"history": ["i1"], "k": true}': '"k" must be a whole number',
        '{"history": ["i1"], "k": 99999999999999999999}': "k must be a whole number from 1 to 24",
        '{"history": ["i1"], "strength": -1}': "strength must be a number from 0 to 10",
        '{"history": ["i1"], "strength": NaN}': "strength must be a number from 0 to 10",
        '{"history": ["i1"], "strength": "1"}': '"strength" must be a number',
        '{"history": ["i1"], "include": ["rde"]}': "did you mean 'red'",
        '{"history": ["i1", "x"], "strict": true}': "holds 'x'",
    }
    good = {"history": HISTORY, "prompt": "<b>red</b> & <script>alert(1)</script>", "k": 2}
    lines = [json.dumps(good), *wrong, "", json.dumps(good | {"explain": True})]
    feed(monkeypatch, "\n".join(lines).encode())
    assert main(["recommend", run, "-"]) == 0
    out, err = capsys.readouterr()
    assert err.endswith(f"{len(wrong)} of {len(wrong) + 2} requests were wrong\n")
    first, *answers, last = map(json.loads, out.splitlines())
    assert len(first["items"]) == len(last["items"]) == len(last["before"]) == 2
    assert last["items"][0].keys() > {"base", "shift", "semantic", "rank", "rank_before"}
    for number, (answer, message) in enumerate(zip(answers, wrong.values(), strict=True), start=2):
        assert list(answer) == ["error", "line"] and message in answer["error"]
        assert answer["line"] == number


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"history": ["i1"], "prompt": "caf\xe9"}', "it is not UTF-8"),
        ('{"history": ["i1"]}'.encode("utf-16"), "it is not UTF-8"),
        (b'\xef\xbb\xbf{"history": ["i1"]}', "Unexpected UTF-8 BOM"),
    ],
)
def test_a_line_of_other_bytes_does_not_end_the_batch(capsys, run, monkeypatch, line, message):
    good = json.dumps({"history": HISTORY, "prompt": "café rouge", "k": 2}, ensure_ascii=False)
    feed(monkeypatch, b"\n".join([good.encode(), line, good.encode()]))
    first, wrong, last = map(json.loads, said(capsys, "recommend", run, "-").splitlines())
    assert wrong["line"] == 2 and message in wrong["error"]
    assert first == last and len(first["items"]) == 2


def test_export_and_recommend_from_the_index(capsys, run, tmp_path):
    pytest.importorskip("faiss")
    assert said(capsys, "export", run, "--faiss", str(tmp_path / "items.faiss")).strip()
    asked = ["recommend", run, "--history", *HISTORY, "--prompt", "red", "--json"]
    full, quick = (
        [row["item"] for row in json.loads(said(capsys, *asked, *index))["items"]]
        for index in ([], ["--index", str(tmp_path / "items.faiss")])
    )
    assert full == quick


def test_info_tells_what_it_is(capsys, run):
    text = said(capsys, "info", run)
    assert "DPR-SASRec" in text and "red, blue, green" in text.replace("blue, red", "red, blue")
    about = json.loads(said(capsys, "info", run, "--json"))
    assert about["items"] == 24 and about["standard"].startswith("NDCG@10 0.")


def test_info_needs_no_model(capsys, run, tmp_path):
    folder = Path(shutil.copytree(run, tmp_path / "run"))
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("model: DPR-SASRec", "model: DPR-Mine"))
    assert "DPR-Mine" in said(capsys, "info", str(folder))


def test_json_is_utf_8_whatever_the_locale(run):
    lines = json.dumps({"history": HISTORY, "include": ["红"]}).encode()
    command = [sys.executable, "-m", "recbole_dpr", "recommend", run, "-"]
    env = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    told = subprocess.run(command, input=lines, env=env, capture_output=True, check=True).stdout
    assert "红" in json.loads(told.decode("utf-8"))["error"]


def test_info_of_a_run_that_was_measured_at_another_k(capsys, run, tmp_path):
    folder = shutil.copytree(run, tmp_path / "run")
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["tasks"] = {
        "standard": {
            "backbone": {"ndcg@2": 0.1, "ndcg@5": 0.2},
            "DPR": {"ndcg@2": 0.3, "ndcg@5": 0.4},
        }
    }
    (folder / "metrics.json").write_text(json.dumps(metrics))
    options = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(re.sub(r"topk:\n(- \d+\n)+", "topk: [2, 5]\n", options))
    assert "NDCG@5 0.4000" in said(capsys, "info", str(folder))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["recomend", "x"], "invalid choice: 'recomend'"),
        (["info"], "the following arguments are required: run"),
        (["info", "nowhere"], "nowhere is not a run folder: there is no such folder"),
        (["info", "RUN", "--x"], "unknown argument '--x'"),
        (["evaluate", "RUN", "--sede=1"], "command line: unknown option 'sede'"),
        (["evaluate", "RUN", "x"], "is not of the form --option=value"),
        (["recommend", "RUN"], "give either --history ITEM ... or -"),
        (["recommend", "RUN", "-", "--history", "i1"], "give either --history ITEM ... or -"),
        (["recommend", "RUN", "--history", "i99"], "no item of tiny"),
        (["recommend", "RUN", "--history", "i1", "-"], "- among the items of --history"),
        (["recommend", "RUN", "--history", "Thing number 3"], "is the title of 'i3'"),
        (["recommend", "RUN", "--history", "i1", "--include", "tall"], "; there are "),
        (["recommend", "RUN", "--history", "i1", "--k=many"], "invalid int value: 'many'"),
        (["recommend", "RUN", "--history", "i1", "--k=99"], "k must be a whole number"),
        (["recommend", "RUN", "--history", "i1", "--strength=nan"], "strength must be a number"),
        (["recommend", "RUN", "--history", "i1", "--index=nowhere"], "there is no index nowhere"),
        (["export", "RUN", "--faiss=x", "--kind=y"], "unknown kind of index 'y'"),
        (["export", "RUN", "--faiss=no/folder/x"], "--faiss: there is no folder no/folder"),
        (["export", "RUN", "--faiss=."], "--faiss takes the path of a file, not '.'"),
        (["serve", "RUN", "--port=99999"], "--port must be from 0 to 65535"),
    ],
)
def test_a_wrong_call_is_one_line(capsys, run, arguments, message):
    if "index" in message:
        pytest.importorskip("faiss")
    assert main([run if argument == "RUN" else argument for argument in arguments]) == 2
    out, err = capsys.readouterr()
    assert err.startswith("error: ") and message in err and err.count("\n") == 1 and not out
