"""The wheel: complete, installable into an empty environment, and usable from any folder."""

import configparser
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOT_SOURCE = (".*", "build", "*.egg-info", "__pycache__", "saved", "log", "log_tensorboard")
# Nothing of the environment that the tests run in may help.
CLEAN = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("PYTHON", "VIRTUAL_ENV"))
}


def setup_cfg():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def run(*command, **keywords):
    done = subprocess.run(
        [str(part) for part in command], env=CLEAN, capture_output=True, text=True, **keywords
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy: a build leaves folders behind that would go into the next."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*NOT_SOURCE))
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, source)
    return next(folder.glob("*.whl"))


def test_all_packages_are_listed():
    listed = set(setup_cfg()["options"]["packages"].split())
    there = {
        ".".join(file.parent.relative_to(ROOT).parts)
        for file in (ROOT / "recbole_dpr").rglob("__init__.py")
    }
    assert listed == there | {"recbole_dpr.properties"}


def test_every_module_is_in_a_package():
    for file in (ROOT / "recbole_dpr").rglob("*.py"):
        assert (file.parent / "__init__.py").is_file(), f"{file} would not be in the wheel"


def test_every_dependency_is_pinned_and_explained():
    options = setup_cfg()["options"]
    listed = [
        re.match(r"[\w-]+", line.strip())[0]
        for line in options["install_requires"].splitlines()
        if line.strip() and "python_version >=" not in line and not line.startswith("#")
    ]
    tests = setup_cfg()["options.extras_require"]["test"].split()
    pinned = re.findall(r"^([\w-]+)==", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    explained = (ROOT / "docs" / "dependencies.md").read_text()
    for name in [*listed, *tests]:
        assert name in pinned
        assert f"`{name}" in explained


def test_ci_and_readme_share_the_test_command():
    block = re.search(
        r"^<!-- tests -->\s+```bash\n(.+?)\n```$",
        (ROOT / "README.md").read_text(encoding="utf-8"),
        re.MULTILINE | re.DOTALL,
    )
    assert block, "README.md has a bash block after the marker <!-- tests -->"
    assert "pip install -c constraints.txt -e '.[test]'" in block[1]
    assert block[1].endswith("&& pytest -n 2 --dist worksteal")


def test_the_wheel_is_complete(wheel):
    inside = set(zipfile.ZipFile(wheel).namelist())
    properties = {
        f"recbole_dpr/properties/{file.relative_to(ROOT / 'properties').as_posix()}"
        for file in (ROOT / "properties").rglob("*.yaml")
    }
    assert properties <= inside
    modules = {file.relative_to(ROOT).as_posix() for file in (ROOT / "recbole_dpr").rglob("*.py")}
    assert modules <= inside
    page = (ROOT / "recbole_dpr" / "serving" / "page").iterdir()
    readers = (ROOT / "recbole_dpr" / "model").glob("*.safetensors")
    assert {file.relative_to(ROOT).as_posix() for file in (*page, *readers)} <= inside
    assert {"run_recbole_dpr.py", "run_hyper_dpr.py"} <= inside
    assert any(name.endswith("LICENSE") for name in inside)
    assert not any(name.startswith(("tests", "benchmarks", "docs")) for name in inside)


@pytest.mark.slow
def test_a_clean_install_runs_from_another_folder(wheel, data_path, tmp_path):
    venv.create(tmp_path / "venv", with_pip=True)
    programs = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin")
    # Without byte code: most of it is never run, and it takes a third of the time.
    quick = ["--quiet", "--no-compile"]
    pip = [programs / "python", "-m", "pip", "install", *quick, "-c", ROOT / "constraints.txt"]
    if sys.version_info >= (3, 12):  # docs/dependencies.md
        run(*pip, "--no-deps", "recbole==1.2.1")
    run(*pip, wheel)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    assert "--model" in run(programs / "run_recbole_dpr", "--help", cwd=elsewhere)

    where = "import recbole_dpr.files as f; print(f.properties_dir())"
    properties = run(programs / "python", "-c", where, cwd=elsewhere).strip()
    assert properties.startswith(str(tmp_path / "venv"))

    printed = run(
        programs / "run_recbole_dpr",
        "--model=DPR-SASRec",
        "--dataset=tiny",
        f"--data_path={data_path}",
        "--prompt_fields=[colour]",
        "--item_text_fields=[title, colour]",
        f"--text_cache_dir={tmp_path / 'cache'}",
        "--epochs=1",
        cwd=elsewhere,
    )
    run_dir = elsewhere / printed.strip().splitlines()[-1]
    for name in ("config.yaml", "metrics.json", "report.md"):
        assert (run_dir / name).is_file()
