"""benchmarks/requests.py: utterances with what they ask for, put to a trained run."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from recbole_dpr.errors import DPRError

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "requests.py"
FILE = """\
kind\tinclude\texclude\ttext\tnote
positive\tred\t\tsomething red please\tunread
negative\t\tblue\tnothing blue
none\t\t\tthanks!
positive\tred\t\tsomething "green" please
"""


@pytest.fixture(scope="module")
def requests():
    """The script under a name of its own, that of a library being taken."""
    spec = importlib.util.spec_from_file_location("asked_requests", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_last_line_has_the_figures_of_each_kind(
    requests, trained_run, tmp_path, monkeypatch, capsys
):
    asked, out = tmp_path / "asked.tsv", tmp_path / "record.json"
    asked.write_text(FILE)
    arguments = [trained_run["run_dir"], f"--requests={asked}", "--users=5", f"--out={out}"]
    monkeypatch.setattr(sys, "argv", ["requests.py", *arguments])
    requests.main()
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert list(result) == ["positive", "negative", "none", "backbone"]
    assert result["positive"]["utterances"] == 2
    assert result["positive"]["read_exactly"] == 0.5  # green is another wish
    assert result["none"] == result["backbone"]["none"]
    assert result["none"]["overlap@10"] == 1
    negative = result["negative"]
    assert negative["violation@10"] < result["backbone"]["negative"]["violation@10"]
    assert negative["violation@10"] + negative["satisfied@10"] == pytest.approx(1)
    record = json.loads(out.read_text())
    assert record["readers"].keys() == {"shipped"}
    assert record["positive"] == result["positive"] and record["dataset"] == "tiny"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("red\t\tsomething", "mauve\t\tsomething"), "line 2: no value 'mauve' in this run"),
        (("none\t", "nothing\t"), "line 4: kind 'nothing' is none of"),
        (("\ttext", "\twords"), "has no column text"),
    ],
)
def test_a_file_that_cannot_be_asked_is_refused_by_line(requests, tmp_path, change, message):
    path = tmp_path / "asked.tsv"
    path.write_text(FILE.replace(*change, 1))
    with pytest.raises(DPRError, match=message):
        requests.read_requests(path, ["red", "green", "blue"])
