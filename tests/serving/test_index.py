"""An index finds what the full ranking finds."""

import numpy as np
import pytest

import recbole_dpr
from recbole_dpr.errors import DPRError
from recbole_dpr.serving import index as module
from recbole_dpr.serving.index import KINDS, FaissIndex, as_distances, sample_users

faiss = pytest.importorskip("faiss")
HISTORY = ["i1", "i4", "i7", "i2"]
REQUESTS = ([HISTORY, HISTORY[:1], HISTORY[::-1]], ["something red please", None, "no blue"])


@pytest.fixture(scope="module")
def recommender(trained_run):
    return recbole_dpr.load(trained_run["run_dir"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "options", [{}, {"exclude_history": True}, {"strength": 0}, {"strength": 2}]
)
def test_recommendations_are_those_of_the_full_ranking(
    trained_run, recommender, tmp_path, kind, options
):
    FaissIndex.build(recommender.item_vectors(), kind, sample_users(recommender)).save(
        tmp_path / "i"
    )
    assert FaissIndex.load(tmp_path / "i").kind == kind
    quick = recbole_dpr.load(trained_run["run_dir"], index=tmp_path / "i")
    for found, expected in zip(
        quick.recommend(*REQUESTS, k=5, **options),
        recommender.recommend(*REQUESTS, k=5, **options),
        strict=True,
    ):
        assert [token for token, _ in found] == [token for token, _ in expected]
        assert [s for _, s in found] == pytest.approx([s for _, s in expected], abs=1e-5)


class Backwards:
    """An index that finds everything and puts the best last."""

    def fits(self, vectors):
        return True

    def search(self, users, k):
        scores = users @ self.vectors.T
        return (scores[:, 1:].argsort(axis=1) + 1)[:, -k:]


def test_what_the_index_finds_is_put_in_the_order_of_the_scores(trained_run, recommender):
    index = Backwards()
    index.vectors = recommender.item_vectors()
    quick = recbole_dpr.load(trained_run["run_dir"], index=index)
    for options in ({}, {"exclude_history": True}):
        found, expected = (
            [[token for token, _ in answer] for answer in some.recommend(*REQUESTS, k=5, **options)]
            for some in (quick, recommender)
        )
        assert found == expected


class Short(Backwards):
    """An index that finds two items and no more, as a graph that does not reach all."""

    def search(self, users, k):
        return np.pad(super().search(users, 2), ((0, 0), (0, k - 2)))


def test_what_an_index_does_not_find_is_ranked_in_full(trained_run, recommender):
    index = Short()
    index.vectors = recommender.item_vectors()
    quick = recbole_dpr.load(trained_run["run_dir"], index=index)
    for options in ({}, {"exclude_history": True}):
        assert quick.recommend(*REQUESTS, k=5, **options) == recommender.recommend(
            *REQUESTS, k=5, **options
        )


@pytest.mark.parametrize("kind", KINDS)
def test_an_index_of_another_run_of_the_same_data_is_refused(trained_run, recommender, kind):
    vectors, users = recommender.item_vectors(), sample_users(recommender)
    other = np.random.default_rng(3).normal(0, vectors.std(), vectors.shape).astype(np.float32)
    assert FaissIndex.build(vectors, kind, users).fits(vectors)
    with pytest.raises(DPRError, match="the index is of another run: export it again"):
        recbole_dpr.load(trained_run["run_dir"], index=FaissIndex.build(other, kind, users))


@pytest.mark.parametrize("n", [4, 7, 100])  # fewer than there are values to ask for and against
def test_as_many_users_are_made_up_as_are_asked_for(recommender, n):
    assert sample_users(recommender, n).shape == (n, recommender.item_vectors().shape[1])


def test_everything_can_be_asked_for(trained_run, recommender):
    vectors = recommender.item_vectors()
    quick = recbole_dpr.load(trained_run["run_dir"], index=FaissIndex.build(vectors, "exact"))
    (answer,) = quick.recommend([HISTORY], ["red"], k=24, exclude_history=True)
    assert {token for token, _ in answer} == {f"i{n}" for n in range(24)} - {*HISTORY}


@pytest.mark.parametrize(("kind", "least"), [("ivf", 0.9), ("hnsw", 0.95)])
def test_recall_over_many_items_whose_directions_differ_in_length(kind, least):
    rng = np.random.default_rng(1)
    scale = np.float32([10.0] * 8 + [1.0] * 8)
    items = rng.standard_normal((20_001, 16), dtype=np.float32) / scale
    users = rng.standard_normal((300, 16), dtype=np.float32) * scale
    truth = FaissIndex.build(items, "exact").search(users[200:], 100)
    index = FaissIndex.build(items, kind, users[:200])
    assert index.fits(items) and not index.fits(items[::-1])
    found = index.search(users[200:], 100)
    recall = np.mean([len(set(a) & set(b)) / 100 for a, b in zip(found, truth, strict=True)])
    assert recall > least


def test_distances_rank_as_inner_products():
    rng = np.random.default_rng(2)
    items, users = (
        rng.standard_normal((n, 5)).astype(np.float32) * [1, 2, 9, 1, 5] for n in (40, 30)
    )
    placed, turn = as_distances(items.astype(np.float32), users)
    asked = users @ turn.T
    distances = np.square(asked[:, None] - placed[None]).sum(axis=2)
    assert (distances.argsort(axis=1) == (-(users @ items.T)).argsort(axis=1)).all()
    assert np.square(placed).sum(axis=1) == pytest.approx(np.square(placed[0]).sum(), rel=1e-4)


def test_wrong_indexes_are_named(recommender, trained_run, tmp_path, monkeypatch):
    vectors = recommender.item_vectors()
    with pytest.raises(DPRError, match="unknown kind of index 'hsnw'; did you mean 'hnsw'"):
        FaissIndex.build(vectors, "hsnw")
    with pytest.raises(DPRError, match="needs a sample of user vectors"):
        FaissIndex.build(vectors, "hnsw")
    with pytest.raises(DPRError, match="there is no index"):
        FaissIndex.load(tmp_path / "nowhere")
    (tmp_path / "no_index").write_text("nonsense")
    with pytest.raises(DPRError, match="is no faiss index, or damaged"):
        FaissIndex.load(tmp_path / "no_index")
    items = np.ascontiguousarray(vectors[1:])
    by_distance = faiss.IndexFlatL2(items.shape[1])
    by_distance.add(items)
    numbered = faiss.IndexIDMap2(faiss.IndexFlatIP(items.shape[1]))
    numbered.add_with_ids(items, np.arange(len(items)))
    for other in (by_distance, numbered):
        faiss.write_index(other, str(tmp_path / "other"))
        with pytest.raises(DPRError, match="is a faiss index of another kind: export it again"):
            FaissIndex.load(tmp_path / "other")
    with pytest.raises(DPRError, match="cannot write the index"):
        FaissIndex.build(vectors, "exact").save(tmp_path / "no" / "folder")
    with pytest.raises(DPRError, match="the index is of another run"):
        recbole_dpr.load(trained_run["run_dir"], index=FaissIndex.build(vectors[:-1], "exact"))
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    with pytest.raises(DPRError, match=r"pip install 'recbole_dpr\[faiss\]'"):
        module.import_faiss()
