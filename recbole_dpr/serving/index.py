"""FaissIndex: the item vectors in an index, for catalogues too large to rank in full."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from recbole_dpr.errors import DPRError, did_you_mean
from recbole_dpr.files import replacing

KINDS = ("exact", "ivf", "hnsw")
LINKS = 32  # neighbours of an item in the HNSW graph
CARE = 100  # candidates that are looked at when an item is put into the graph
EFFORT = {"exact": 0, "ivf": 128, "hnsw": 768}  # lists or candidates looked at per query
POINTS_PER_LIST = 64  # that faiss trains the lists of an IVF index with
COMPARED = 100  # items that tell whether an index is of this run
ROUNDING = 1e-3  # of the largest number; two runs differ by as much as their numbers
RIDGE = 1e-2  # of a mean variance; keeps directions that no user and no item uses in bounds


def import_faiss() -> Any:
    """The module faiss, or a `DPRError` that says how to get it."""
    try:
        import faiss
    except ImportError:
        raise DPRError("an index needs faiss: pip install 'recbole_dpr[faiss]'") from None
    return faiss


def check_kind(kind: str) -> None:
    """Refuse a kind of index that there is not.

    Raises
    ------
    DPRError
        Naming those that there are.
    """
    if kind not in KINDS:
        raise DPRError(f"unknown kind of index {kind!r}{did_you_mean(str(kind), KINDS)}; {KINDS}")


class FaissIndex:
    """A faiss index over item vectors, by their inner product with a user vector.

    What `Recommender(index=...)` takes. The file that `save` writes is a plain faiss index that takes
    user vectors as they are; its ids are rows of `Recommender.item_vectors()` less one, since the
    padding item is not in it.

    Parameters
    ----------
    index : faiss.Index
    """

    def __init__(self, index: Any) -> None:
        self.index = index

    @classmethod
    def build(
        cls, vectors: np.ndarray, kind: str = "hnsw", users: np.ndarray | None = None
    ) -> FaissIndex:
        """Put item vectors into an index.

        Parameters
        ----------
        vectors : float array ``[n_items, d]``
            As `Recommender.item_vectors` gives them; row 0 is padding.
        kind : str
            "exact" compares with every item; "ivf" with the items of the nearest lists; "hnsw" walks
            a graph: the quickest, and the largest in memory.
        users : float array ``[n, d]``, optional
            A sample of user vectors (see `sample_users`), which "ivf" and "hnsw" need: what is near
            depends on which directions users ask in.

        Raises
        ------
        DPRError
            If faiss is not there, the kind is unknown or the sample is missing.
        """
        faiss = import_faiss()
        check_kind(kind)
        items = np.ascontiguousarray(vectors[1:], dtype=np.float32)
        if kind == "exact":
            index = faiss.IndexFlatIP(items.shape[1])
            index.add(items)
            return cls(index)
        if users is None:
            raise DPRError(f"an index of kind {kind!r} needs a sample of user vectors")
        items, turn = as_distances(items, users)
        n, size = items.shape
        if kind == "hnsw":
            index = faiss.IndexHNSWFlat(size, LINKS)
            index.hnsw.efConstruction = CARE
        else:
            n_lists = max(1, min(int(4 * n**0.5), n // POINTS_PER_LIST))
            index = faiss.IndexIVFFlat(faiss.IndexFlatL2(size), size, n_lists)
            index.cp.max_points_per_centroid = POINTS_PER_LIST
            index.train(items)
        index.add(items)
        queries = faiss.LinearTransform(users.shape[1], size, False)
        faiss.copy_array_to_vector(np.ascontiguousarray(turn, dtype=np.float32).ravel(), queries.A)
        queries.is_trained = True
        built = cls(faiss.IndexPreTransform(queries, index))
        built.effort(EFFORT[kind])
        return built

    @property
    def _core(self) -> Any:
        faiss = import_faiss()
        index = faiss.downcast_index(self.index)
        return faiss.downcast_index(index.index) if hasattr(index, "chain") else index

    @property
    def kind(self) -> str:
        """One of `KINDS`."""
        core = self._core
        return "hnsw" if hasattr(core, "hnsw") else "ivf" if hasattr(core, "nprobe") else "exact"

    def effort(self, amount: int) -> None:
        """How many lists (ivf) or candidates (hnsw) a query looks at: more is slower and finds more."""
        if self.kind == "hnsw":
            self._core.hnsw.efSearch = amount
        elif self.kind == "ivf":
            self._core.nprobe = amount

    def fits(self, vectors: np.ndarray) -> bool:
        """Whether the index was built on these item vectors, ``[n_items, d]``.

        Their number and length must be the same, and so must the first of them, up to rounding:
        another run of the same model and data has vectors of the same shape.
        """
        if (self.index.ntotal + 1, self.index.d) != vectors.shape:
            return False
        expected = vectors[1 : 1 + COMPARED]
        differ = np.abs(self._held(len(expected)) - expected).max()
        return bool(differ <= ROUNDING * np.abs(expected).max())

    def _held(self, n: int) -> np.ndarray:
        """The first n item vectors as the index holds them, ``[n, d]``."""
        held = self._core.reconstruct_n(0, n)
        if not hasattr(self.index, "chain"):
            return held
        # Items times the matrix for user vectors are the items as they were: see `as_distances`.
        turn = self.index.chain.at(0).apply(np.eye(self.index.d))
        return held @ turn.T

    def search(self, users: np.ndarray, k: int) -> np.ndarray:
        """Rows of `item_vectors` for user vectors: ``[B, k]``, best first; 0 where none was found."""
        return self.index.search(np.ascontiguousarray(users, dtype=np.float32), k)[1] + 1

    def save(self, path: str | Path) -> None:
        """Write the index, whole or not at all.

        Raises
        ------
        DPRError
            If the file cannot be written.
        """
        faiss = import_faiss()
        try:
            with replacing(path) as temporary:
                faiss.write_index(self.index, str(temporary))
        except (RuntimeError, OSError) as error:
            raise DPRError(f"cannot write the index {path}: {_reason(error)}") from error

    @classmethod
    def load(cls, path: str | Path) -> FaissIndex:
        """Read what `save` wrote.

        Raises
        ------
        DPRError
            If the file is missing, damaged or no faiss index, or not one that `build` makes.
        """
        faiss = import_faiss()
        if not Path(path).is_file():
            raise DPRError(f"there is no index {path}")
        try:
            index = faiss.read_index(str(path))
        except (RuntimeError, MemoryError) as error:
            raise DPRError(f"{path} is no faiss index, or damaged: {_reason(error)}") from error
        loaded = cls(index)
        # Others may rank by distance, or end the process when they are asked for their vectors.
        outer, core = type(index), type(loaded._core)
        if outer is not faiss.IndexFlatIP and (
            outer is not faiss.IndexPreTransform
            or index.chain.size() != 1
            or core not in (faiss.IndexHNSWFlat, faiss.IndexIVFFlat)
        ):
            raise DPRError(f"{path} is a faiss index of another kind: export it again")
        return loaded


def as_distances(items: np.ndarray, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turn a search by inner product into one by distance, in which near items matter alike to users.

    First, what users multiply with large numbers is stretched in the items and shrunk in the users, by
    the matrix A that makes their second moments equal; inner products stay as they are. Without it,
    recall@100 of HNSW over 100,000 items was 0.71 in place of 0.95. Then each item gets a last
    coordinate that brings all to one length, so that the nearest has the largest inner product
    (Bachrach et al., 2014).

    Parameters
    ----------
    items : float32 array ``[n, d]``
    users : float array ``[m, d]``
        A sample.

    Returns
    -------
    items ``[n, d + 1]``, and the matrix ``[d + 1, d]`` that user vectors are multiplied with.
    """
    size = items.shape[1]
    moments = []
    for vectors in (items, users):
        moment = vectors.T.astype(np.float64) @ vectors / len(vectors)
        moments.append(moment + np.eye(size) * np.trace(moment) / size * RIDGE)
    # A A is the geometric mean of the items' inverse moment and the users'.
    root = _root(moments[0])
    inverse = np.linalg.inv(root)
    a = _root(inverse @ _root(root @ moments[1] @ root) @ inverse)
    stretched = (items @ a).astype(np.float32)
    lengths = np.square(stretched).sum(axis=1)
    last = np.sqrt(lengths.max() - lengths)[:, None]
    turn = np.concatenate([np.linalg.inv(a), np.zeros((1, size))])
    return np.concatenate([stretched, last], axis=1), turn


def _root(matrix: np.ndarray) -> np.ndarray:
    """The square root of a symmetric positive matrix."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def sample_users(recommender: Any, n: int = 2000, seed: int = 0) -> np.ndarray:
    """User vectors of made-up histories, one half without a prompt, the other with one value each."""
    rng = np.random.default_rng(seed)
    tokens = recommender.catalogue.tokens[1:]
    values = recommender.catalogue.attributes.values if recommender.takes_prompts else []
    asks = [{side: [value]} for value in values for side in ("include", "exclude")]
    if len(asks) > n // 2:  # one user each is enough of that half
        asks = [asks[i] for i in rng.permutation(len(asks))[: n // 2]]

    def some(many: int, **ask: list[str]) -> np.ndarray:
        lengths = rng.integers(5, 50, size=many)
        histories = [[tokens[i] for i in rng.integers(len(tokens), size=n)] for n in lengths]
        return recommender.user_vectors(histories, [None] * many, **ask)

    each = max(1, n // (2 * len(asks))) if asks else 0
    return np.concatenate([some(n - each * len(asks)), *(some(each, **ask) for ask in asks)])


def _reason(error: Exception) -> str:
    """What went wrong in one line; faiss's own messages begin with a line of C++."""
    return (
        str(error).strip().splitlines()[-1][-200:] if str(error).strip() else type(error).__name__
    )
