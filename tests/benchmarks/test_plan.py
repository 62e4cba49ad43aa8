import pytest

from recbole_dpr.config import DPRConfig
from recbole_dpr.errors import DPRError
from suites.one_run import TIMING
from suites.plan import Run, plan, read_suites, runs_of, start_of

TABLE = """
shared:
  more: &more {strength: 2}
main:
  tiny:
    - {models: [DPR-SASRec, DPR-GRU4Rec], seeds: [1, 2], options: *more}
    - {models: [SASRec], kind: recbole, variants: {recbole: {}}, seeds: [1]}
    - {models: [SASRec], seeds: [3], long: True}
ablation:
  tiny:
    - {models: [DPR-SASRec], seeds: [1], start: "", variants: {one: {n_experts: 1}, none: {stage2_epochs: 0}}}
backbones:
  tiny:
    - {models: [NPE, HGN], prefix: DPR-, seeds: [1], variants: {short: {epochs: 2}}}
    - {models: [HGN], prefix: DPR-, seeds: [1], variants: {short: {epochs: 1}}}
"""


@pytest.fixture
def suites(tmp_path):
    path = tmp_path / "suites.yaml"
    path.write_text(TABLE)
    return read_suites(path)


def test_a_group_is_models_times_variants_times_seeds(suites):
    assert [str(run) for run in runs_of(suites, "ablation", "tiny")] == [
        "DPR-SASRec-one seed 1",
        "DPR-SASRec-none seed 1",
    ]
    assert [str(run) for run in plan(suites, "main", "tiny")] == [
        "DPR-SASRec seed 1",
        "DPR-SASRec seed 2",
        "DPR-GRU4Rec seed 1",
        "DPR-GRU4Rec seed 2",
        "SASRec-recbole seed 1",
    ]


def test_long_runs_come_when_asked_for(suites):
    assert str(plan(suites, "main", "tiny", long=True)[-1]) == "SASRec seed 3"


def test_models_seeds_and_options_of_the_call_count(suites):
    runs = plan(suites, "main", "tiny", models=["DPR-SASRec"], seeds=[7], options={"strength": 1})
    assert [(str(run), run.options) for run in runs] == [("DPR-SASRec seed 7", {"strength": 1})]
    assert plan(suites, "main", "tiny", models=["SASRec-recbole"])[0].kind == "recbole"


def test_a_later_group_overrules_an_earlier_one(suites):
    runs = runs_of(suites, "backbones", "tiny")
    assert {run.model: run.options["epochs"] for run in runs} == {"DPR-NPE": 2, "DPR-HGN": 1}


def test_a_run_starts_from_the_same_seed_of_the_variant_that_it_names(suites):
    run = plan(suites, "ablation", "tiny", seeds=[5])[0]
    start = start_of(suites, run, {"data_path": "x"})
    assert start == Run("tiny", "DPR-SASRec", 5, "DPR-SASRec")
    assert start.options == {"strength": 2, "data_path": "x"}
    assert start_of(suites, start) is None


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("mein", "tiny"), "no suite 'mein'; did you mean 'main'"),
        (("main", "ml-1m"), "no runs on ml-1m, only on tiny"),
    ],
)
def test_what_the_table_does_not_have_is_named(suites, arguments, says):
    with pytest.raises(DPRError, match=says):
        plan(suites, *arguments)


def test_a_model_that_the_suite_does_not_have_is_named(suites):
    with pytest.raises(DPRError, match="no 'DPR-SASRek' on tiny; did you mean 'DPR-SASRec'"):
        plan(suites, "main", "tiny", models=["DPR-SASRek"])


@pytest.mark.parametrize(
    ("group", "says"),
    [
        ("{models: [SASRec], seeds: [1], option: {}}", "unknown 'option'; did you mean 'options'"),
        ("{models: [SASRec]}", "has no seeds"),
        ("{models: [SASRec], seeds: [1], kind: theirs}", "kind 'theirs' is none of"),
    ],
)
def test_a_wrong_group_is_named(tmp_path, group, says):
    path = tmp_path / "suites.yaml"
    path.write_text(f"main:\n  tiny:\n    - {group}\n")
    with pytest.raises(DPRError, match=says):
        read_suites(path)


def test_the_shipped_table_names_only_models_and_options_that_there_are():
    suites = read_suites()
    checked = set()
    for suite, datasets in suites.items():
        for dataset in datasets:
            for run in runs_of(suites, suite, dataset):
                start_of(suites, run)
                options = {k: v for k, v in run.options.items() if k not in TIMING}
                options.pop("selected_features", None)  # columns of another data set
                key = (run.model, str(options))
                if options and key not in checked:
                    DPRConfig(run.model, "ml-100k", config_dict=options)
                    checked.add(key)
    assert len(checked) > 30


def test_the_variants_of_the_shipped_table_do_not_clash():
    """A record must not be shared by two runs with other options."""
    suites = read_suites()
    seen = {}
    for suite, datasets in suites.items():
        for dataset in datasets:
            for run in runs_of(suites, suite, dataset):
                what = (run.model, run.kind, run.options, run.start)
                assert seen.setdefault((dataset, run.variant), what) == what
