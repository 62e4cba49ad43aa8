"""A run that leaves histories out of its lists: training, figures and serving say the same."""

import json
from pathlib import Path

import numpy as np
import pytest
from recbole.utils.case_study import full_sort_topk

import recbole_dpr
from recbole_dpr import run_recbole_dpr
from recbole_dpr.errors import DPRError
from recbole_dpr.quick_start import evaluate, load_data_and_model
from recbole_dpr.run_folder import describe_run
from recbole_dpr.serving.requests import parse_request, respond
from recbole_dpr.serving.web import about

HISTORY = [f"i{n}" for n in range(12)]  # longer than the list that the model looks at


@pytest.fixture(scope="module")
def run(make_tiny_options, tmp_path_factory):
    folder, options = make_tiny_options()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        result = run_recbole_dpr(
            "DPR-SASRec", "tiny", config_dict=options | {"exclude_history": True}
        )
    return {"data": folder / "data/tiny/tiny.inter", **result}


@pytest.fixture(scope="module")
def recommender(run):
    return recbole_dpr.load(run["run_dir"])


def tokens(found):
    return {token for token, _ in found}


def test_the_figures_are_those_of_lists_without_the_history(run, recommender):
    rows = [line.split("\t")[:2] for line in run["data"].read_text().splitlines()[1:]]
    histories = {user: [item for u, item in rows if u == user] for user, _ in rows}
    found = recommender.recommend([h[:-1] for h in histories.values()], [None] * len(histories))
    hits = [h[-1] in tokens(f) for h, f in zip(histories.values(), found, strict=True)]
    figures = run["tasks"]["standard"]
    assert figures["DPR"] == figures["backbone"]
    assert figures["DPR"]["hit@10"] == pytest.approx(sum(hits) / len(hits))
    # Thirteen of 24 items are left to each of them, so that chance has 10 of 13.
    assert sum(hits) / len(hits) > 0.6


def test_a_run_can_be_measured_either_way(run):
    own, with_history = (evaluate(run["run_dir"], {"exclude_history": x}) for x in (True, False))
    assert own["tasks"] == run["tasks"]
    hits = [found["tasks"]["standard"]["backbone"]["hit@10"] for found in (own, with_history)]
    assert hits[1] < hits[0]


def test_the_run_says_so(run, recommender, tiny_options, data_path):
    folder = Path(run["run_dir"])
    assert json.loads((folder / "metrics.json").read_text())["exclude_history"] is True
    assert (
        "No system recommends what stands in a user's history" in (folder / "report.md").read_text()
    )
    assert "nothing that stands in it is recommended" in describe_run(folder)["history"]
    assert {len(history) for _, history in recommender.users} == {11}  # whole, not the last ten

    def log(**options):
        more = {"state": "info", "stage2_epochs": 0, "stage3_epochs": 0, **options}
        result = run_recbole_dpr("DPR-SASRec", "tiny", config_dict=tiny_options | more)
        (file,) = Path(result["run_dir"]).glob("*.log")
        return file.read_text()

    hint, warning = "--exclude_history=True leaves out", "training targets were taken before"
    assert hint in log() and hint not in log(exclude_history=True)
    path = data_path / "tiny/tiny.inter"
    rows = [line.split("\t") for line in path.read_text().splitlines()]
    path.write_text(
        "\n".join("\t".join([u, "i1" if t in ("1", "5") else i, t]) for u, i, t in rows)
    )
    assert hint not in log() and warning in log(exclude_history=True)


def test_recboles_case_study_leaves_it_out(run, recommender):
    _, model, dataset, _, _, test = load_data_and_model(run["run_dir"])
    user = dataset.token2id(dataset.uid_field, ["u3"])
    _, (items,) = full_sort_topk(user, model, test, k=13)
    (history,) = test.dataset.histories(
        np.flatnonzero(test.dataset.inter_feat["user_id"] == user[0])
    )
    assert not {*dataset.id2token(dataset.iid_field, items)} & {*history}


def test_a_request_that_says_nothing_goes_by_the_run(recommender):
    (found,) = recommender.recommend([HISTORY], ["red"], k=24)
    assert tokens(found) == {f"i{n}" for n in range(12, 24)}
    (everything,) = recommender.recommend([HISTORY], ["red"], k=24, exclude_history=False)
    with pytest.raises(DPRError, match="exclude_history takes True, False or None, not 'no'"):
        recommender.recommend([HISTORY], ["red"], exclude_history="no")
    assert len(everything) == 24
    assert [pair for pair in everything if pair[0] not in HISTORY] == found
    explained = recommender.explain(HISTORY, "red", k=3)
    assert [row["rank"] for row in explained] == [1, 2, 3]
    assert about(recommender)["exclude_history"] is True


@pytest.mark.parametrize(
    ("said", "n_items"),
    [("", 12), (', "exclude_history": null', 12), (', "exclude_history": false', 24)],
)
def test_a_request_as_json(recommender, said, n_items):
    history = str(HISTORY).replace("'", '"')
    asked = parse_request(f'{{"history": {history}, "k": 24, "explain": true{said}}}')
    answer = respond(recommender, asked)
    assert len(answer["items"]) == len(answer["before"]) == n_items


def test_another_value_is_refused():
    with pytest.raises(DPRError, match='"exclude_history" must be true, false or null'):
        parse_request('{"history": ["i1"], "exclude_history": 1}')
