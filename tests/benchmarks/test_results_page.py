"""docs/results.md from records alone, with figures that are known."""

import json
import re

import numpy as np
import pytest

from suites import backbones_page, results_page
from suites.figures import cell, clearly_best, percent, ratio
from suites.plan import read_suites
from suites.readers import readers_of
from suites.records import Folders
from suites.top_ranks import top_ranks

TASKS = ("positive", "negative", "compound")
SYSTEMS = ("DPR", "backbone", "filter", "calibrated_filter", "post_filter")


def figures(ndcg, satisfied=1.0, violation=0.0):
    return {
        "ndcg@10": ndcg,
        "recall@10": ndcg,
        "satisfied@10": satisfied,
        "violation@10": violation,
        "users": 200,
    }


def old_record(model="DPR-SASRec", seed=2020, dpr=0.3, filtered=0.2):
    """A record as they were before `options`, `validation` and ranks were kept."""
    ndcg = {"DPR": dpr, "backbone": 0.1, "filter": filtered, "calibrated_filter": 0.21}
    ndcg["post_filter"] = 0.15
    tasks = {task: {name: figures(ndcg[name]) for name in SYSTEMS} for task in TASKS}
    standard = {"standard": {name: figures(0.1) for name in ("DPR", "backbone")}}
    return {
        "model": model,
        "dataset": "ml-100k",
        "seed": seed,
        "tasks": {**standard, **tasks},
        "slices": {"positive": {"on_habit": tasks["positive"], "off_habit": tasks["positive"]}},
        "seconds": {"stage1": 10.0, "stage2": 5.0, "stage3": 20.0, "evaluate": 1.0, "total": 40.0},
        "epochs": {"stage1": 5},
        "epoch_seconds": {"stage1": 2.0},
        "seconds_to_goal": None,
        "machine": "2 CPU cores",
        "versions": {"torch": "2.13"},
    }


def new_record(model="DPR-SASRec", seed=2020, dpr=0.3, dpr_rank=1, filtered=0.2, **more):
    """A record of today. DPR has every second of 200 users at `dpr_rank`; the filters at rank 4 or 5."""
    ranks = {name: [11] * 200 for name in SYSTEMS}
    ranks["DPR"] = [dpr_rank if user % 2 else 50 for user in range(200)]
    for name in ("filter", "calibrated_filter", "post_filter"):
        ranks[name] = [4 + user % 4 // 2 if user % 2 else 50 for user in range(200)]
    unseen = {task: {"rows": list(range(200)), "ranks": ranks} for task in TASKS}
    return {
        **old_record(model, seed, dpr, filtered),
        "top_ranks": top_ranks({"unseen": unseen}),
        "validation": [[2.0, 0.05], [4.0, 0.06], [6.0, 0.055]],
        "memory_mb": 1234,
        "options": {},
        **more,
    }


def plain_record(model, loop="ours", validation=((2.0, 0.05), (4.0, 0.06)), **more):
    """A plain model in one of the two loops."""
    return {
        "model": model,
        "dataset": "ml-100k",
        "seed": 2020,
        "kind": loop,
        "tasks": {"standard": {"backbone": figures(0.06)}},
        "seconds": {"stage1": 10.0, "total": 12.0},
        "validation": [list(point) for point in validation],
        "machine": "2 CPU cores",
        "versions": {"torch": "2.13"},
        **more,
    }


def keep(results, variant, *records, dataset="ml-100k"):
    """Write records where `Folders` finds them."""
    for record in records:
        path = results / dataset / variant / f"seed-{record['seed']}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record))


def spread(*values):
    """Half of the 95 % interval of three values by Student's t with two degrees of freedom."""
    return 4.302653 * np.std(values, ddof=1) / len(values) ** 0.5


@pytest.fixture
def folders(tmp_path):
    return Folders(tmp_path / "results", tmp_path / "no-runs-here")


@pytest.fixture
def page(folders, tmp_path):
    """Writes the page and returns its text."""

    def write():
        results_page.write(folders, tmp_path / "docs", read_suites())
        return (tmp_path / "docs" / "results.md").read_text()

    return write


def row(text, label):
    """The cells of the first line of a table with this label."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {label} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_cell_is_the_mean_and_its_interval():
    records = [{"a": {"b": value}} for value in (0.1, 0.2, 0.3)]
    assert cell(records, "a", "b") == f"0.2000 ± {spread(0.1, 0.2, 0.3):.4f}"
    assert cell(records[:1], "a", "b") == "0.1000"
    assert cell(records, "a", "c") == "-"
    assert percent(records, "a", "b") == "20.0 %"


def test_the_page_says_what_was_read_by_other_readers(folders, page):
    now = readers_of({})
    old = new_record(readers={"shipped": "0"})
    keep(folders.results, "DPR-SASRec", new_record(readers=now), {**old, "seed": 2021})
    both = {"reader": ["shipped", "large"]}
    keep(folders.results, "DPR-SASRec-two_readers", new_record(options=both, readers=now))
    keep(folders.results, "DPR-SASRec-pooled", new_record(options={"reader": "pooled"}))
    keep(folders.results, "DPR-GRU4Rec-short", old)
    (line,) = (line for line in page().splitlines() if line.startswith("Read by the readers of"))
    assert line.endswith(": DPR-SASRec (2021), DPR-SASRec-two_readers (2020).")


def test_the_page_says_where_records_depart_from_the_suite(folders, page):
    keep(
        folders.results,
        "DPR-SASRec",
        new_record(options={"stage3_epochs": 6}),
        new_record(seed=2021),
    )
    text = page()
    assert "DPR-SASRec seed 2020 was made with `--stage3_epochs=6`, too." in text
    assert "DPR-SASRec seed 2021 was made" not in text
    (line,) = (line for line in text.splitlines() if line.startswith("Planned, without a record"))
    assert "DPR-SASRec seed 2022" in line
    assert "DPR-SASRec seed 2021" not in line


def test_a_ratio_takes_only_records_that_have_both():
    records = [{"a": 2, "b": 1}, {"a": 100}]
    assert ratio(records, ["a"], ["b"]) == 2


def test_bold_is_for_a_best_that_is_no_chance():
    assert clearly_best([new_record()], "positive") == {"DPR"}
    lucky = [1 if user < 2 else 50 for user in range(200)]
    ranks = {"DPR": lucky, **{name: [50] * 200 for name in SYSTEMS[1:]}}
    part = top_ranks({"unseen": {"positive": {"rows": list(range(200)), "ranks": ranks}}})
    assert clearly_best([{**old_record(), "top_ranks": part}], "positive") == set()
    assert clearly_best([old_record()], "positive") == set()


def test_main_table_of_old_and_new_records(folders, page):
    keep(folders.results, "DPR-SASRec", *(new_record(seed=s, dpr=0.3) for s in (2020, 2021, 2022)))
    keep(folders.results, "DPR-GRU4Rec", old_record("DPR-GRU4Rec"))
    text = page()
    new, old = text.split("### DPR-GRU4Rec")
    assert row(new, "`DPR`")[2:4] == ["**0.3000 ± 0.0000** (1.50)", "100.0 %"]
    assert row(old, "`DPR`")[2:4] == ["0.3000 (1.50)", "100.0 %"]
    assert row(new, "`filter`")[1] == "true attributes"
    over = [line for line in new.splitlines() if line.startswith("| `filter` |")][1]
    assert "1.50 x, p < 0.001" in over
    assert row(text, "DPR-SASRec")[-2:] == ["1,234", "-"]
    assert row(text, "DPR-GRU4Rec")[-2:] == ["-", "-"]
    assert "python benchmarks/run.py --suite main --dataset ml-100k" in text
    assert "- Versions: torch 2.13" in text
    assert (folders.results.parent / "docs" / "images" / "systems-ml-100k.png").is_file()


def test_records_whose_filter_knew_wishes_alone_are_named(folders, page):
    keep(folders.results, "DPR-SASRec", new_record(seed=2020), new_record(seed=2021, filtered=0.21))
    said = "`calibrated_filter` takes account of what is wanted alone"
    assert f"In the older record of seed 2021 {said}" in page()
    keep(folders.results, "DPR-SASRec", new_record(seed=2020, filtered=0.21))
    assert f"In these older records {said}" in page()
    keep(folders.results, "DPR-SASRec", new_record(seed=2020), new_record(seed=2021))
    assert said not in page()


def test_only_what_differs_by_phrases_has_a_line_of_its_own(folders, page):
    record = old_record()
    seen = {task: dict(systems) for task, systems in record["tasks"].items()}
    seen["positive"]["DPR"] = figures(0.4)
    keep(folders.results, "DPR-SASRec", {**record, "tasks_seen_phrases": seen})
    text = page()
    other = text.split("In other phrases")[1]
    assert row(other, "`DPR`")[1:3] == ["seen", "0.4000 (2.00)"]
    assert "`filter`" not in other


def test_baselines_of_both_loops_side_by_side(folders, page):
    keep(folders.results, "SASRec", plain_record("SASRec", validation=[(2.0, 0.05), (4.0, 0.07)]))
    theirs = plain_record(
        "SASRec", "recbole", validation=[(30.0, 0.03), (60.0, 0.06), (90.0, 0.05)]
    )
    keep(folders.results, "SASRec-recbole", theirs)
    keep(folders.results, "GRU4Rec", plain_record("GRU4Rec"))
    text = page()
    assert row(text, "SASRec") == ["SASRec", "0.0600", "0.0600", "4", "60", "4", "15.0"]
    assert row(text, "GRU4Rec") == ["GRU4Rec", "0.0600", "-", "4", "-", "-", "-"]


def test_ablations_are_tested_against_the_full_model(folders, page):
    keep(folders.results, "DPR-SASRec", new_record())
    worse = {"dpr": 0.27, "dpr_rank": 6}
    keep(folders.results, "DPR-SASRec-no_fusion", new_record(**worse))
    keep(folders.results, "DPR-SASRec-pooled", new_record(**worse))
    keep(folders.results, "DPR-SASRec-trained_reader", new_record(dpr=0.27, dpr_rank=6))
    text = page()
    none = next(line for line in text.splitlines() if "(`no_fusion`)" in line)
    assert "| 0.2700 | -10.0 %, p < 0.001 |" in none
    pooled = next(line for line in text.splitlines() if "(`pooled`)" in line)
    assert "against `trained_reader`" in pooled
    assert "| 0.2700 | +0.0 %, p = 1.000 |" in pooled
    assert (folders.results.parent / "docs" / "images" / "ablations-ml-100k.png").is_file()


def test_delta_auc_requests_and_speed_where_they_were_measured(folders, page):
    change = {"increase": {"DPR": {"mean": 0.25}}, "decrease": {"DPR": {"mean": -0.5}}, "users": 50}
    keep(folders.results, "DPR-SASRec", new_record(delta_auc=change))
    kind = {"satisfied@10": 0.9, "violation@10": 0.0, "overlap@10": 0.1, "read_exactly": 0.8}
    asked = {"positive": {**kind, "utterances": 12}}
    unheard = {"positive": {**kind, "satisfied@10": 0.2}}
    about = {"model": "DPR-SASRec", "seed": 2020}
    keep(folders.results, "DPR-SASRec-requests", {**about, **asked, "backbone": unheard})
    times = {"ours_s": 4.0, "recbole_s": 200.0, "recbole_plain_s": 90.0, "epoch_ratio": 50.0}
    keep(folders.results, "SASRec-speed", {"model": "SASRec", "seed": 2020, **times})
    text = page()
    delta = text.split("### Delta AUC")[1]
    assert row(delta, "`DPR`") == ["`DPR`", "0.250", "-0.500"]
    assert "same 50 users" in delta
    real = text.split("### Real utterances")[1]
    assert row(real, "positive")[:3] == ["positive", "12", "90.0 % (20.0 %)"]
    assert row(text.split("### Speed")[1], "SASRec")[1:5] == ["4.0", "200.0", "90.0", "50.0"]


def test_the_page_of_no_records_has_no_tables(page):
    assert "|" not in page()


def test_the_recorded_results_of_the_project_make_a_page(tmp_path):
    pages = results_page.write(Folders(), tmp_path, read_suites())
    assert all(path.is_file() for path in pages)
    text = pages[0].read_text()
    assert not re.search(r"\bnan\b|None", text)


def test_backbones_page(folders, tmp_path):
    short = old_record("DPR-SASRec")
    keep(folders.results, "DPR-SASRec-short", short)
    why = {"model": "SASRec", "seed": 2020, "causal": True, "why": "SASRec is causal"}
    keep(folders.results, "SASRec-epoch", {**why, "ours_s": 5.0, "recbole_plain_s": 160.0})
    keep(folders.results, "SASRec-L10-recbole", plain_record("SASRec", "recbole"))
    for variant in ("SASRec-L10", "SASRec-L200"):
        keep(folders.results, variant, plain_record("SASRec"))
    assert backbones_page.write(folders, tmp_path) == [tmp_path / "backbones.md"]
    text = (tmp_path / "backbones.md").read_text()
    cells = ["user vector", "yes", "5.0", "160.0", "-", "-", "0.100", "0.300 / 0.200 / 0.150"]
    assert row(text, "SASRec")[1:9] == cells
    assert "Steered so far: 1 of 31; on positive prompts 1 of them beat" in text
    assert "- SASRec is causal." in text
    assert "| SASRec | 10 | 0.0600 (1) | 0.0600 (1) | +0.0000 |" in text
    assert "| SASRec | 200 | - | 0.0600 (1) | - |" in text


def test_of_how_many_seeds_a_ratio_is(folders, page):
    for seed, best in ((2020, 0.05), (2021, 0.07)):
        ours = plain_record("SASRec", validation=[(4.0, 0.06)], seed=seed)
        keep(folders.results, "SASRec", ours)
        theirs = plain_record("SASRec", "recbole", validation=[(60.0, best)], seed=seed)
        keep(folders.results, "SASRec-recbole", theirs)
    assert row(page(), "SASRec")[-1] == "15.0 (1 of 2)"


def test_what_no_seed_reaches_is_said(folders, page):
    keep(folders.results, "SASRec", plain_record("SASRec", validation=[(4.0, 0.06)]))
    theirs = plain_record("SASRec", "recbole", validation=[(60.0, 0.07)])
    keep(folders.results, "SASRec-recbole", theirs)
    assert row(page(), "SASRec")[-2:] == ["-", "never (0 of 1)"]
