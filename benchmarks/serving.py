"""How fast a trained run answers: one user, many users, over HTTP and in the page.

    python benchmarks/serving.py --data_path=data            # ml-1m must be in data/ml-1m
    python benchmarks/serving.py --dataset=ml-100k --seconds=10

Makes a run folder of an untrained model (the arithmetic is that of a trained one), then measures, in
several rounds of which the median is reported:

- `load_s`: a fresh process from start to the first answer without and with a prompt, imports included;
  `load_only_s`: `recbole_dpr.load` alone, modules being there already.
- `seen_ms`, `new_ms`: one user, with a prompt that was seen before, and with one that never was; on
  `--threads` threads (a server takes one).
- `batch_s`: 6,040 users with one of 200 prompts each, none of them seen before; `backbone_s`: the
  backbone's own full ranking of the same users (full_sort_predict and topk); `batch_ratio`: the first
  by the second, prompts read. Both on all threads.
- `http_*`: 16 clients that send one request after the other, 20 % of them with a new prompt.
- `page_ms`: from a key in the prompt's field to the changed list, in headless Chromium (if it is there).

Beside the clock's times stand those of the processor (`*_cpu_*`), which other programs on the machine
hardly change; with OMP_NUM_THREADS=1 the two are the same on a machine that does nothing else. The
last line is one JSON object.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.append(sys.path.pop(0))  # so that requests.py does not hide the library of that name

import numpy as np
import torch

import recbole_dpr
from recbole_dpr.arguments import exit_status
from recbole_dpr.checkpoint import MODEL_FILE, save_tensors
from recbole_dpr.config import DPRConfig
from recbole_dpr.run_folder import write_run_folder
from recbole_dpr.serving.ranking import ROWS
from recbole_dpr.serving.recommender import Recommender
from recbole_dpr.training.setup import prepare

WANTS = ("a {} please", "I would love some {}", "in the mood for {} tonight", "show me {}")
REJECTS = ("no {}", "nothing like {}", "anything but {}", "I cannot stand {}")


def untrained_run(
    folder: Path, model: str, dataset: str, options: dict[str, Any]
) -> list[list[str]]:
    """Write a run folder; returns the histories of all users of the test split."""
    config = DPRConfig(f"DPR-{model}", dataset, config_dict=options)
    data, phrasebook, made = prepare(config)
    write_run_folder(folder, config, data, phrasebook)
    save_tensors(folder / MODEL_FILE, made.state_dict(), {})
    split = data.test.dataset
    return split.histories(np.arange(len(split)))


class Prompts:
    """An endless supply of prompts, no two of them alike."""

    def __init__(self, values: list[str]) -> None:
        self._rng, self._values, self._n = random.Random(0), values, itertools.count()

    def __call__(self) -> str:
        wanted, rejected = self._rng.sample(self._values, 2)
        parts = (self._rng.choice(WANTS).format(wanted), self._rng.choice(REJECTS).format(rejected))
        return f"{parts[0].lower()}, {parts[1].lower()} ({next(self._n)})"


def milliseconds(function: Callable[[int], Any], n: int) -> dict[str, float]:
    """Median and 99th percentile of n calls, by the clock and of this thread's processor time."""
    clock, cpu = [], []
    for i in range(n):
        started = (time.perf_counter(), time.thread_time())
        function(i)
        clock.append((time.perf_counter() - started[0]) * 1000)
        cpu.append((time.thread_time() - started[1]) * 1000)
    kinds = (("ms", sorted(clock)), ("cpu_ms", sorted(cpu)))
    return {
        f"{name}_{unit}": times[int(n * share)]
        for unit, times in kinds
        for name, share in (("p50", 0.5), ("p99", 0.99))
    }


def single(
    recommender: Recommender, histories: list[list[str]], prompts: Prompts, rounds: int
) -> dict[str, Any]:
    """One user at a time."""
    seen = [prompts() for _ in range(200)]
    recommender.recommend([histories[0]] * len(seen), seen)
    texts: dict[str, Callable[[int], str]] = {
        "seen": lambda i: seen[i % len(seen)],
        "new": lambda i: prompts(),
    }
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        for kind, n in (("seen", 500), ("new", 100)):
            times = milliseconds(
                lambda i, text=texts[kind]: recommender.recommend(
                    [histories[i % len(histories)]], [text(i)]
                ),
                n,
            )
            for name, value in times.items():
                found.setdefault(f"{kind}_{name}", []).append(value)
    return {name: round(statistics.median(times), 2) for name, times in found.items()}


def backbone_ranking(recommender: Recommender, histories: list[list[str]], k: int) -> None:
    """What RecBole would do for these users: its model's scores, and the k best of them."""
    ids, _ = recommender._histories.known(histories, len(histories), False)
    with torch.inference_mode():
        for begin in range(0, len(ids), ROWS):
            interaction = recommender._histories.interaction(ids[begin : begin + ROWS])
            scores = recommender.model.backbone.model.full_sort_predict(interaction)
            scores[:, 0] = -torch.inf
            scores.topk(k, dim=1)


def batch(
    recommender: Recommender, histories: list[list[str]], prompts: Prompts, rounds: int
) -> dict[str, Any]:
    """All users at once, one of 200 prompts each."""
    times: dict[str, list[float]] = {}
    backbone_ranking(recommender, histories[:ROWS], 10)
    for _ in range(rounds):
        texts = [prompts() for _ in range(200)]
        asked = [texts[i % 200] for i in range(len(histories))]
        calls: dict[str, Callable[[], Any]] = {
            "batch": lambda asked=asked: recommender.recommend(histories, asked, k=10),
            "batch_read": lambda asked=asked: recommender.recommend(histories, asked, k=10),
            "backbone": lambda: backbone_ranking(recommender, histories, 10),
        }
        for name, call in calls.items():
            started = (time.perf_counter(), time.process_time())
            call()
            times.setdefault(f"{name}_s", []).append(time.perf_counter() - started[0])
            times.setdefault(f"{name}_cpu_s", []).append(time.process_time() - started[1])
    result = {name: round(statistics.median(values), 3) for name, values in times.items()}
    for unit in ("", "_cpu"):
        pairs = zip(times[f"batch_read{unit}_s"], times[f"backbone{unit}_s"], strict=True)
        result[f"batch{unit}_ratio"] = round(statistics.median(a / b for a, b in pairs), 3)
    return {"users": len(histories), **result}


def loading(run: Path, rounds: int) -> dict[str, Any]:
    """Fresh processes, from their start to an answer."""
    program = (
        "import recbole_dpr, sys; r = recbole_dpr.load(sys.argv[1]); "
        "r.recommend([r.catalogue.tokens[1:9]], [sys.argv[2] or None])"
    )
    found = {}
    for name, prompt in (("load_s", ""), ("load_and_prompt_s", "a comedy")):
        times = []
        for _ in range(rounds):
            started = time.perf_counter()
            subprocess.run([sys.executable, "-c", program, str(run), prompt], check=True)
            times.append(time.perf_counter() - started)
        found[name] = round(statistics.median(times), 2)
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        recbole_dpr.load(run)
        times.append(time.perf_counter() - started)
    return {**found, "load_only_s": round(statistics.median(times), 3)}


def client(port: int, bodies: list[bytes], until: float, out: list[list[float]]) -> None:
    """Send one request after the other; appends [seconds, or -1 for an error] to `out`."""
    times = []
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    for body in itertools.cycle(bodies):
        if time.perf_counter() > until:
            break
        started = time.perf_counter()
        try:
            connection.request("POST", "/recommend", body)
            response = connection.getresponse()
            right = response.status == 200 and len(json.loads(response.read())["items"]) == 10
        except (OSError, http.client.HTTPException, ValueError, KeyError):
            right = False
            connection.close()
        times.append(time.perf_counter() - started if right else -1.0)
    out.append(times)


def over_http(
    port: int, histories: list[list[str]], prompts: Prompts, seconds: float
) -> dict[str, Any]:
    """16 clients; a fifth of the prompts is new."""
    seen = [prompts() for _ in range(200)]
    rng = random.Random(1)
    out: list[list[float]] = []
    until = time.perf_counter() + seconds
    threads = []
    for _ in range(16):
        bodies = [
            json.dumps(
                {
                    "history": rng.choice(histories),
                    "prompt": prompts() if rng.random() < 0.2 else rng.choice(seen),
                }
            ).encode()
            for _ in range(round(50 * seconds))
        ]
        threads.append(threading.Thread(target=client, args=(port, bodies, until, out)))
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spent = time.perf_counter() - started
    times = sorted(t for row in out for t in row if t >= 0)
    return {
        "http_errors": sum(t < 0 for row in out for t in row),
        "http_requests_per_s": round(len(times) / spent, 1),
        "http_p50_ms": round(1000 * times[len(times) // 2], 1),
        "http_p99_ms": round(1000 * times[int(0.99 * len(times))], 1),
    }


TYPE = """
const done = arguments[arguments.length - 1], field = document.querySelector(".turn");
const list = document.getElementById("after");
const started = performance.now();
new MutationObserver((_, observer) => { observer.disconnect(); done(performance.now() - started); })
  .observe(list, { childList: true });
field.value = arguments[0];
field.dispatchEvent(new Event("input", { bubbles: true }));
"""


def in_the_page(port: int, prompts: Prompts, rounds: int) -> dict[str, Any]:
    """Milliseconds from a key to the changed list, all prompts being new."""
    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and chromedriver):
        return {"page_ms": None}
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"):
        options.add_argument(f"--{argument}")
    browser = webdriver.Chrome(options=options, service=Service(chromedriver))
    try:
        browser.get(f"http://127.0.0.1:{port}/")
        time.sleep(3)
        times = [browser.execute_async_script(TYPE, prompts()) for _ in range(10 * rounds)]
    finally:
        browser.quit()
    return {"page_ms": round(statistics.median(times), 1), "page_max_ms": round(max(times), 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--model", default="SASRec")
    parser.add_argument("--dataset", default="ml-1m")
    parser.add_argument("--data_path", default=None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=60, help="of the HTTP test")
    parser.add_argument("--threads", type=int, default=1, help="for one user at a time")
    args = parser.parse_args()
    options: dict[str, Any] = {"show_progress": False, "state": "warning"}
    if args.data_path:
        options["data_path"] = args.data_path
    all_threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder)
        histories = untrained_run(run, args.model, args.dataset, options)
        recommender = recbole_dpr.load(run)
        prompts = Prompts(recommender.catalogue.readable)
        result: dict[str, Any] = {"model": args.model, "dataset": args.dataset}
        result |= {"items": len(recommender.titles), "threads": all_threads}

        def report(part: dict[str, Any]) -> None:
            print(part, flush=True)
            result.update(part)

        report(loading(run, args.rounds))
        torch.set_num_threads(args.threads)
        report(single(recommender, histories, prompts, args.rounds))
        torch.set_num_threads(all_threads)
        report(batch(recommender, histories, prompts, args.rounds))
        command = [sys.executable, "-m", "recbole_dpr", "serve", str(run), "--port=0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None
                port = int(server.stdout.readline().strip().strip("/").rsplit(":", 1)[1])
                report(in_the_page(port, prompts, args.rounds))
                report(over_http(port, histories, prompts, args.seconds))
            finally:
                server.terminate()
    print(json.dumps(result))


if __name__ == "__main__":
    sys.exit(exit_status(main))
