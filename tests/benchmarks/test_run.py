"""The whole command on the data set `tiny`."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "run.py"
SUITES = {
    "main": {
        "tiny": [
            {"models": ["DPR-SASRec"], "seeds": [1]},
            {"models": ["SASRec"], "kind": "recbole", "variants": {"recbole": {}}, "seeds": [1]},
            {
                "models": ["SASRec"],
                "seeds": [1],
                "kind": "speed",
                "variants": {"speed": {"rounds": 1}},
            },
        ]
    },
    "ablation": {
        "tiny": [
            {
                "models": ["DPR-SASRec"],
                "seeds": [1],
                "start": "",
                "variants": {"one_expert": {"n_experts": 1}},
            }
        ]
    },
}


@pytest.fixture
def command(tmp_path, tiny_options):
    """The command line for a suite, everything below `tmp_path`."""
    table = tmp_path / "suites.yaml"
    table.write_text(yaml.safe_dump(SUITES))
    options = {k: v for k, v in tiny_options.items() if k not in ("checkpoint_dir", "n_experts")}

    def make(suite, *flags, **more):
        texts = [f"--{name}={json.dumps(value)}" for name, value in {**options, **more}.items()]
        places = [f"--results={tmp_path / 'results'}", f"--runs={tmp_path / 'runs'}"]
        table_flag = f"--suites={table}"
        return [
            *(sys.executable, str(SCRIPT), f"--suite={suite}", "--dataset=tiny"),
            *(table_flag, *places, *flags, *texts),
        ]

    return make


def call(line):
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=1200)


def record(tmp_path, variant):
    return json.loads((tmp_path / "results" / "tiny" / variant / "seed-1.json").read_text())


@pytest.mark.slow
def test_suites_run_are_recorded_and_not_run_again(tmp_path, command):
    done = call(command("main", epochs=1))
    assert done.returncode == 0, done.stderr
    ours, theirs, speed = (
        record(tmp_path, name) for name in ("DPR-SASRec", "SASRec-recbole", "SASRec-speed")
    )
    assert ours["epochs"] == {"stage1": 1, "stage2": 1, "stage3": 1}
    assert len(ours["validation"]) == 1
    assert set(ours["top_ranks"]) == {"standard", "positive", "negative", "compound"}
    assert ours["memory_mb"] > 100
    assert ours["options"]["epochs"] == 1
    assert "data_path" not in ours["options"]
    assert theirs["tasks"]["standard"]["backbone"]["users"] == 40
    assert len(theirs["validation"]) == theirs["epochs"]["stage1"] == 1
    assert speed["epoch_ratio"] > 0
    assert "DPR-SASRec" in (tmp_path / "results" / "results.md").read_text()

    again = call(command("main", epochs=1))
    assert "0 to run, 3 recorded" in again.stderr
    assert "begins" not in again.stderr
    assert "recorded with other options" not in again.stderr
    assert "recorded with other options" in call(command("main", "--plan", epochs=2)).stderr

    done = call(command("ablation", epochs=1))
    assert "1 to run, 0 recorded" in done.stderr  # the run that it starts from is there
    ablated = record(tmp_path, "DPR-SASRec-one_expert")
    assert ablated["tasks"]["standard"] == ours["tasks"]["standard"]  # the same backbone
    assert "stage1" not in ablated["epochs"]


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_where_it_stood(tmp_path, command):
    line = command("main", "--models", "DPR-SASRec", stage1_epochs=300, stage1_patience=300)
    process = subprocess.Popen(line, start_new_session=True, stderr=subprocess.DEVNULL)
    work = tmp_path / "runs" / "tiny" / "DPR-SASRec" / "seed-1"
    limit = time.monotonic() + 400
    while not list(work.glob("*/resume.safetensors")) and time.monotonic() < limit:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    (run_dir,) = (path.parent for path in work.glob("*/resume.safetensors"))
    assert not list(tmp_path.glob("results/tiny/*/*.json"))

    done = call(line)
    assert done.returncode == 0, done.stderr
    assert f"goes on in {run_dir}" in (work / "output.txt").read_text()
    assert record(tmp_path, "DPR-SASRec")["epochs"]["stage1"] == 300

    call(command("main", "--models", "DPR-SASRec", "--again", stage1_epochs=1))
    assert record(tmp_path, "DPR-SASRec")["epochs"]["stage1"] == 1


@pytest.mark.slow
def test_a_run_that_is_at_work_is_left_alone(tmp_path, command):
    """The child of a call that was killed goes on, and the next call does not run beside it."""
    endless = dict.fromkeys(("epochs", "stage1_epochs", "stage1_patience"), 10**6)
    line = command("main", "--models", "DPR-SASRec", **endless)
    process = subprocess.Popen(line, start_new_session=True, stderr=subprocess.DEVNULL)
    work = tmp_path / "runs" / "tiny" / "DPR-SASRec" / "seed-1"
    limit = time.monotonic() + 400
    while not list(work.glob("*/resume.safetensors")) and time.monotonic() < limit:
        time.sleep(0.05)
    process.kill()  # the parent alone
    try:
        assert "is being run by another process" in call(line).stderr
    finally:
        os.killpg(process.pid, signal.SIGKILL)


def test_wrong_calls_are_one_line(tmp_path, command):
    assert call(command("mein")).stderr.startswith("error: there is no suite 'mein'")
    unknown = call([*command("main"), "epochs"])
    assert unknown.returncode == 2
    assert "is not of the form --option=value" in unknown.stderr
