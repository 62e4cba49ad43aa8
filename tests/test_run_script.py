import subprocess
import sys
import time
from pathlib import Path

import pytest

import recbole_dpr
import run_recbole_dpr
from recbole_dpr.config import DPRConfig
from recbole_dpr.errors import DPRError
from recbole_dpr.files import properties_dir

SCRIPT = Path(run_recbole_dpr.__file__)


@pytest.fixture
def calls(monkeypatch):
    """What the script hands over, in place of a training run."""
    made = []

    def run(**arguments):
        made.append(arguments)
        DPRConfig(
            arguments["model"],
            arguments["dataset"],
            arguments["config_file_list"],
            arguments["config_dict"],
            arguments["command_line"],
        )
        return {"run_dir": "saved/the-run"}

    monkeypatch.setitem(vars(recbole_dpr), "run_recbole_dpr", run)
    return made


def wrong(capsys, *arguments):
    """The message of a wrong call, which must be one line and no traceback."""
    assert run_recbole_dpr.main(arguments) == 2
    out, err = capsys.readouterr()
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert not out
    return err


def test_help_is_quick_and_names_the_flags():
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, SCRIPT, "--help"], capture_output=True, text=True, check=True
    )
    assert time.perf_counter() - start < 5, "did it import torch? (0.1 s where it did not)"
    for flag in ("-m", "--model", "-d", "--dataset", "--config_files", "--resume", "--nproc"):
        assert flag in done.stdout
    for flag in ("--ip", "--port", "--world_size", "--group_offset", "--stage1_epochs="):
        assert flag in done.stdout
    assert "default DPR-SASRec" in done.stdout
    lines = [line for line in done.stdout.splitlines() if str(properties_dir()) not in line]
    assert max(map(len, lines)) <= 100


def test_help_imports_neither_torch_nor_recbole():
    program = """
import sys, run_recbole_dpr
try:
    run_recbole_dpr.main(["--help"])
except SystemExit as end:
    assert end.code == 0
assert not {"torch", "recbole", "numpy"} & sys.modules.keys()
"""
    subprocess.run(
        [sys.executable, "-c", program], check=True, cwd=SCRIPT.parent, stdout=subprocess.DEVNULL
    )


@pytest.mark.parametrize("written", [["--model=SASRec"], ["--model", "SASRec"], ["-m", "SASRec"]])
def test_a_flag_is_written_with_equals_or_space(calls, capsys, written):
    assert run_recbole_dpr.main([*written, "-d", "ml-100k"]) == 0
    assert (calls[0]["model"], calls[0]["dataset"]) == ("SASRec", "ml-100k")
    assert capsys.readouterr().out == "saved/the-run\n"


def test_what_is_not_given_is_left_to_the_property_files(calls):
    run_recbole_dpr.main([])
    assert calls[0] == {
        "model": None,
        "dataset": None,
        "config_file_list": None,
        "config_dict": None,
        "command_line": [],
        "resume": None,
    }


def test_options_are_handed_over_as_written(calls):
    options = ["--epochs=3", "--text_encoder=a=b c", "--task_mix={none: 1}"]
    run_recbole_dpr.main(["--model=SASRec", *options, "--nproc=1"])
    assert calls[0]["command_line"] == [*options, "--nproc=1"]


def test_config_files_are_separated_by_spaces(calls, tmp_path):
    first, second = tmp_path / "a.yaml", tmp_path / "b c.yaml"
    first.write_text("epochs: 1\n")
    second.write_text("epochs: 2\n")
    run_recbole_dpr.main(["--config_files", f"{first} {first}"])
    run_recbole_dpr.main([f"--config_files={second}"])
    assert [call["config_file_list"] for call in calls] == [[str(first)] * 2, [str(second)]]


def test_a_tilde_behind_an_equals_sign_is_the_home_folder(calls, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "my run.yaml").write_text("epochs: 1\n")
    run_recbole_dpr.main(["--config_files=~/my run.yaml"])
    run_recbole_dpr.main(["--config_files=~/a.yaml ~/b.yaml", "--resume=~/run"])
    assert [call["config_file_list"] for call in calls] == [
        [f"{tmp_path}/my run.yaml"],
        [f"{tmp_path}/a.yaml", f"{tmp_path}/b.yaml"],
    ]
    assert calls[1]["resume"] == f"{tmp_path}/run"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["SASRec"], "unexpected 'SASRec': options are written --option=value"),
        (["--epochs"], "--epochs has no value: write --epochs=VALUE"),
        (["--epochs", "--seed=1"], "--epochs has no value"),
        (["--epochs", "3"], "--epochs 3 must be written --epochs=3"),
        (["-e", "3"], "unknown flag '-e'"),
        (["--model"], "expected one argument"),
        (["--model=SASRec", "-m", "GRU4Rec"], "--model is given twice"),
        (["--mod=SASRec"], "unknown option 'mod'"),
        (["--seed=1", "--seed=2"], "option 'seed' is given twice"),
        (["--learning_rat=1"], "did you mean 'learning_rate'"),
        (["--model=DPR-SASRex"], "did you mean 'DPR-SASRec'"),
        (["--dataset=ml100k"], "did you mean 'ml-100k'"),
        (["--config_files=nowhere.yaml"], "there is no config file nowhere.yaml"),
        (["--nproc=2"], "not supported yet"),
    ],
)
def test_a_wrong_call_is_one_line(calls, capsys, arguments, says):
    assert says in wrong(capsys, *arguments)


def test_interrupting_is_no_traceback(monkeypatch, capsys):
    def run(**_):
        raise KeyboardInterrupt

    monkeypatch.setitem(vars(recbole_dpr), "run_recbole_dpr", run)
    assert run_recbole_dpr.main([]) == 130
    assert not capsys.readouterr().err


def test_without_recbole_the_message_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(recbole_dpr, "find_spec", lambda name: None)
    with pytest.raises(DPRError, match=r"pip install --no-deps recbole==1\.2\.1"):
        _ = recbole_dpr.DPRConfig


def test_a_name_that_the_package_does_not_have():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = recbole_dpr.nonsense
