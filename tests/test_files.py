"""What is written is written whole or not at all."""

import json

import pytest

from recbole_dpr.errors import DPRError
from recbole_dpr.files import replacing, write_json


def test_json_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "metrics.json"
    write_json(path, {"a": 1})

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DPRError, match="No space left on device"):
        write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.json"]


def test_whatever_goes_wrong_the_old_file_stays_alone(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as temporary:
        temporary.write_text("half of the n")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_two_that_write_at_once_do_not_meet(tmp_path):
    path = tmp_path / "file"
    with replacing(path) as slow:
        slow.write_text("half of what is sl")
        with replacing(path) as quick:
            quick.write_text("quick")
        assert path.read_text() == "quick"
        slow.write_text("slow")
    assert path.read_text() == "slow" and list(tmp_path.iterdir()) == [path]
