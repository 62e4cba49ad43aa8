"""The property files: every option is explained, has one default, and is read somewhere."""

import re
from pathlib import Path

import pytest
import yaml

import recbole_dpr
from recbole_dpr.config import DPRConfig
from recbole_dpr.files import properties_dir, read_yaml, recbole_dir
from recbole_dpr.naming import sequential_models
from recbole_dpr.options import COMPARISONS, WORDS, layered_options, read_options

FOLDER = properties_dir()
OVERALL, DPR = FOLDER / "overall.yaml", FOLDER / "model" / "DPR.yaml"
DATASETS = sorted((FOLDER / "dataset").glob("*.yaml"))
BACKBONES = sorted({*(FOLDER / "model").glob("*.yaml")} - {DPR})
FILES = [OVERALL, DPR, *BACKBONES, *DATASETS]
# The protocol stands in overall.yaml although RecBole's sequential defaults are the same: some of
# RecBole's models bring others, and figures are to be comparable between all.
PROTOCOL = {"eval_args", "repeatable", "metrics"}


def names(files):
    return [file.stem for file in files]


@pytest.mark.parametrize("file", FILES, ids=names(FILES))
def test_every_key_has_a_comment_with_its_type(file):
    for line in file.read_text(encoding="utf-8").splitlines():
        if re.match(r" *[\w-]+:", line):
            comment = re.fullmatch(r" *[\w-]+:[^#]*# \(([^)]+)\) (.{5,}[.])", line)
            assert comment, f"{file.name}: {line}"
            types, *bounds = comment[1].split(", ")
            assert set(types.split(" or ")) <= WORDS.keys(), line
            for bound in bounds:
                assert bound.startswith("one of ") or bound.split()[0] in COMPARISONS, line


@pytest.mark.parametrize("file", FILES, ids=names(FILES))
def test_every_default_is_of_its_own_type_and_range(file):
    options = read_options(file)
    assert options.keys() == read_yaml(file).keys()
    for option in options.values():
        assert option.ours
        assert option.check(option.default, file.name) == option.default


def test_every_default_lives_once():
    overall, dpr = read_yaml(OVERALL), read_yaml(DPR)
    recbole = {}
    for name in ("overall", "dataset/sample", "model/SASRec", "quick_start_config/sequential"):
        recbole.update(read_yaml(recbole_dir() / "properties" / f"{name}.yaml"))
    assert not overall.keys() & dpr.keys()
    assert not dpr.keys() & recbole.keys(), "an option of RecBole's belongs into overall.yaml"
    for name in (overall.keys() & recbole.keys()) - PROTOCOL:
        assert overall[name] != recbole[name], f"{name} has RecBole's default: leave it to RecBole"
    for file in BACKBONES:
        own = read_yaml(recbole_dir() / "properties" / "model" / file.name)
        for name, value in read_yaml(file).items():
            weaker = {**recbole, **own, **overall, **dpr}
            assert value != weaker[name], f"{file.name} repeats the default of {name}"
    for file in DATASETS:
        for name, value in read_yaml(file).items():
            weaker = {**recbole, **overall, **dpr}
            assert name in weaker, f"{file.name}: {name}"
            same = value == weaker[name]
            assert not same or name == "phrasebook", f"{file.name} repeats the default of {name}"


def test_the_readme_and_the_code_repeat_no_default():
    """A fallback beside a read option would be a second place for its default."""
    own = set(read_options(DPR)) | set(read_options(OVERALL))
    for file in Path(recbole_dpr.__file__).parent.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        for name in re.findall(r"config\.get\(\s*[\"'](\w+)[\"']\s*,", text):
            assert name not in own, f"{file.name}: config.get({name!r}, ...)"


def test_every_option_is_read_somewhere():
    package = Path(recbole_dpr.__file__).parent
    code = "".join(file.read_text(encoding="utf-8") for file in package.rglob("*.py"))
    code = re.sub(r"stage\{\w+\}_(\{\w+\})?", "stage1_", code)
    of_recbole = {"model", "dataset", *read_yaml(recbole_dir() / "properties" / "overall.yaml")}
    for name in [*read_options(DPR), *(read_options(OVERALL).keys() - of_recbole)]:
        stage = re.fullmatch(r"stage[123]_(\w+)", name)
        wanted = [f'"{stage[1]}"'] if stage else [f'"{name}"', f"'{name}'"]
        assert any(text in code for text in wanted), f"nothing reads {name}"


def test_no_data_set_allows_less_than_the_option_does():
    general = {**read_options(OVERALL), **read_options(DPR)}
    for file in DATASETS:
        for name, option in read_options(file).items():
            if name in general:
                assert option.types == general[name].types, f"{file.name}: {name}"


@pytest.mark.parametrize("file", DATASETS, ids=names(DATASETS))
def test_every_data_set_makes_a_config(file, tmp_path):
    (tmp_path / file.stem).mkdir()
    config = DPRConfig(dataset=file.stem, config_dict={"data_path": tmp_path})
    assert config["prompt_fields"], "what may be prompted for"
    columns = {*config["prompt_fields"], *config["item_text_fields"], config["title_field"]}
    assert columns <= set(config["load_col"]["item"])
    assert config["TIME_FIELD"] in config["load_col"]["inter"]
    assert (FOLDER / "phrasebook" / f"{config['phrasebook']}.yaml").is_file()


@pytest.mark.parametrize("name", ["ml-1m", "ml-1m-tmdb", "amazon-beauty"])
def test_the_columns_are_those_of_the_real_files(name):
    folder = Path(__file__).resolve().parents[2] / "shared" / "data" / name
    if not folder.is_dir():
        pytest.skip("the data set is not there")
    config = DPRConfig(dataset=name, config_dict={"data_path": folder.parent})
    for suffix in ("inter", "item"):
        with (folder / f"{name}.{suffix}").open(encoding="utf-8") as file:
            columns = {column.split(":")[0] for column in file.readline().strip().split("\t")}
        # A data set need not have prompts of its own.
        assert set(config["load_col"][suffix]) - {config["PROMPT_ID_FIELD"]} <= columns


@pytest.mark.parametrize("backbone", sorted(sequential_models().values()))
def test_every_sequential_model_of_recbole_makes_a_config(backbone):
    assert DPRConfig(backbone)["backbone"] == backbone
    assert DPRConfig(f"DPR-{backbone}")["promptable"]


@pytest.mark.parametrize("backbone", sorted(sequential_models().values()))
def test_recboles_own_defaults_pass_the_checks(backbone):
    """A comment of RecBole's that does not fit its default must not forbid that default."""
    folder = recbole_dir() / "properties"
    files = ["overall", f"model/{backbone}", "dataset/sample", "dataset/ml-100k"]
    for option in layered_options(folder / f"{name}.yaml" for name in files).values():
        option.check(option.default, "RecBole")


def test_the_files_are_plain_yaml():
    for file in FOLDER.rglob("*.yaml"):
        yaml.safe_load(file.read_text(encoding="utf-8"))
