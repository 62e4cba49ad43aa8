"""How well and how fast the indexes find the best of a million items.

    python benchmarks/index.py                      # 1,000,000 items, about ten minutes
    python benchmarks/index.py --items=100000

The catalogue is made up, with the shape of a trained one (DPR-SASRec on ml-100k): 64 collaborative
dimensions whose variances fall as 1/i, 64 semantic ones whose variances fall as exp(-i/4.7), and the
mean lengths of items and users in both. recall@100 is the share of the exact 100 best that the index
finds; queries run one by one on one thread, and the median of several rounds is reported: by the
clock, and per second of processor time, which other programs on the machine hardly change. The last
line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from typing import Any

sys.path.append(sys.path.pop(0))  # so that requests.py does not hide the library of that name

import numpy as np

from recbole_dpr.arguments import exit_status
from recbole_dpr.serving.index import FaissIndex, import_faiss

HALF = 64
PLACES = np.arange(HALF)
# Spectrum, mean length of an item, mean length of a user: collaborative half, then semantic half.
HALVES = ((1 / (1 + PLACES), 0.81, 10.6), (np.exp(-PLACES / 4.7), 7.0, 1.77))
SWEEP = {"ivf": (16, 64, 256), "hnsw": (256, 512, 768, 1024)}


def catalogue(n_items: int, n_users: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Item vectors ``[n_items + 1, 128]`` (row 0 is padding) and user vectors ``[n_users, 128]``."""
    rng = np.random.default_rng(seed)
    items, users = [], []
    for spectrum, item_length, user_length in HALVES:
        turn = np.linalg.qr(rng.standard_normal((HALF, HALF)))[0].astype(np.float32)
        scale = np.sqrt(spectrum / spectrum.sum()).astype(np.float32)
        for made, n, length in ((items, n_items, item_length), (users, n_users, user_length)):
            drawn = rng.standard_normal((n, HALF), dtype=np.float32)
            made.append(drawn * scale * np.float32(length) @ turn)
    padding = np.zeros((1, 2 * HALF), dtype=np.float32)
    return np.concatenate([padding, np.concatenate(items, 1)]), np.concatenate(users, 1)


def measure(index: FaissIndex, users: np.ndarray, truth: np.ndarray, rounds: int) -> dict[str, Any]:
    """Recall@100, and queries per second, and per second of one core, one by one on one thread."""
    found = index.search(users, truth.shape[1])
    recall = np.mean([len(set(a) & set(b)) for a, b in zip(found, truth, strict=True)])
    speeds: dict[str, list[float]] = {"queries_per_s": [], "queries_per_core_s": []}
    for _ in range(rounds):
        started = (time.perf_counter(), time.thread_time())
        for user in users:
            index.search(user[None], truth.shape[1])
        spent = (time.perf_counter() - started[0], time.thread_time() - started[1])
        for name, seconds in zip(speeds, spent, strict=True):
            speeds[name].append(len(users) / seconds)
    return {
        "recall@100": round(float(recall) / truth.shape[1], 4),
        **{name: round(statistics.median(values), 1) for name, values in speeds.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kinds", default="exact,ivf,hnsw")
    args = parser.parse_args()
    faiss = import_faiss()
    items, users = catalogue(args.items, 2000 + args.queries)
    sample, queries = users[:2000], users[2000:]
    result: dict[str, Any] = {"items": args.items, "dimensions": items.shape[1]}
    exact = FaissIndex.build(items, "exact")
    truth = exact.search(queries, 100)
    for kind in args.kinds.split(","):
        started = time.perf_counter()
        index = exact if kind == "exact" else FaissIndex.build(items, kind, sample)
        rows = result[kind] = {"build_s": round(time.perf_counter() - started, 1)}
        threads = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(1)
        few = 20 if kind == "exact" else len(queries)
        for effort in SWEEP.get(kind, (0,)):
            index.effort(effort)
            rows[effort] = measure(index, queries[:few], truth[:few], args.rounds)
            print(kind, effort, rows[effort], flush=True)
        faiss.omp_set_num_threads(threads)
        del index
    print(json.dumps(result))


if __name__ == "__main__":
    sys.exit(exit_status(main))
