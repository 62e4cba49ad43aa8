import itertools
import json
import textwrap

import pytest

from suites import jobs
from suites.jobs import duration, estimate, is_done, run_all, time_left
from suites.plan import Run
from suites.records import Folders

A, B = Run("tiny", "A", 1, "A"), Run("tiny", "B", 1, "B", start="A")
C = Run("tiny", "C", 1, "C")

# In place of a training: writes when it ran, and fails where it is told to.
SCRIPT = """
import json, pathlib, sys, time
job = json.loads(sys.argv[1])
run = job["run"]
path = pathlib.Path(job["results"], run["dataset"], run["variant"], f"seed-{run['seed']}.json")
begun = time.time()
time.sleep(run["options"].get("sleep", 0))
if run["options"].get("fail"):
    sys.exit("nothing works")
path.parent.mkdir(parents=True, exist_ok=True)
record = {"begun": begun, "ended": time.time(), "model": run["model"], "seed": run["seed"]}
path.write_text(json.dumps(record))
"""


@pytest.fixture
def folders(tmp_path, monkeypatch):
    script = tmp_path / "one_run.py"
    script.write_text(textwrap.dedent(SCRIPT))
    monkeypatch.setattr(jobs, "ONE_RUN", script)
    return Folders(tmp_path / "results", tmp_path / "runs")


def with_options(run, **options):
    return Run(**{**vars(run), "options": options})


def times(folders, run):
    record = json.loads(folders.record(run).read_text())
    return record["begun"], record["ended"]


def test_a_run_waits_for_the_one_that_it_starts_from(folders):
    runs = [with_options(A, sleep=0.3), B, C]
    assert run_all(runs, {B: A}, folders, 3, print, wait=0.01) == []
    assert times(folders, B)[0] >= times(folders, A)[1]
    assert times(folders, C)[0] < times(folders, A)[1]


def test_no_more_than_the_given_number_run_at_a_time(folders):
    runs = [with_options(Run("tiny", "A", seed, "A"), sleep=0.1) for seed in range(3)]
    run_all(runs, {}, folders, 1, print, wait=0.01)
    spans = sorted(times(folders, run) for run in runs)
    assert all(first[1] <= second[0] for first, second in itertools.pairwise(spans))


def test_a_failure_stops_only_what_starts_from_it_and_says_why(folders):
    said = []
    failed = run_all([with_options(A, fail=True), B, C], {B: A}, folders, 1, said.append, wait=0.01)
    assert set(failed) == {A, B}
    assert folders.record(C).is_file()
    assert any("A seed 1 FAILED" in line and "nothing works" in line for line in said)
    assert any("B seed 1: not run, because A seed 1 failed" in line for line in said)


def test_what_others_start_from_needs_its_run_folder_too(folders):
    folders.record(A).parent.mkdir(parents=True)
    folders.record(A).write_text("{}")
    assert is_done(A, folders)
    assert not is_done(A, folders, [A])
    run_folder = folders.work(A) / "A-tiny-now"
    run_folder.mkdir(parents=True)
    (run_folder / "report.md").write_text("")
    assert is_done(A, folders, [A])


def record(model, seconds, **more):
    return {"model": model, "seconds": {"total": seconds}, **more}


def test_the_likest_runs_tell_how_long_one_takes():
    records = {
        "A": [record("A", 10), record("A", 30)],
        "A-x": [record("A", 100)],
        "A-speed": [record("A", 5, kind="speed")],
    }
    assert estimate(Run("tiny", "A", 3, "A"), records) == 20
    assert estimate(Run("tiny", "A-y", 3, "A"), records) == 30
    assert estimate(Run("tiny", "B", 3, "B"), records) == 30
    assert estimate(Run("tiny", "B-speed", 3, "B", "speed"), records) == 5
    assert estimate(Run("tiny", "B-recbole", 3, "B", "recbole"), records) is None


def test_time_left_counts_what_runs_and_what_is_unknown(folders):
    for run in (A, C):
        folders.record(run).parent.mkdir(parents=True)
        folders.record(run).write_text(json.dumps(record(run.model, 3600) | {"seed": 1}))
    waiting = [Run("tiny", "A", 2, "A"), Run("tiny", "B", 2, "B", "recbole")]
    left = time_left(waiting, {Run("tiny", "C", 2, "C"): 1800.0}, folders, 1)
    assert left == "about 1 h 30 min and 1 run of unknown length"


@pytest.mark.parametrize(
    ("seconds", "words"), [(7, "7 s"), (75, "1 min 15 s"), (3725, "1 h 02 min")]
)
def test_durations_in_words(seconds, words):
    assert duration(seconds) == words


def test_children_are_stopped_with_their_parent(folders):
    def interrupt(line):
        if "begins" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_all([with_options(A, sleep=60)], {}, folders, 1, interrupt)
    assert not folders.record(A).is_file()
