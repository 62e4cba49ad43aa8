"""Sweep the strength with which prompts steer a trained run, and print what it does to the lists.

    python benchmarks/strength.py RUN_DIR [--strengths 0 0.5 1 2]

Test split, unseen phrases. The last line is JSON: ``{STRENGTH: {TASK: {"satisfied@10", "violation@10",
"ndcg@10"}}}``. A higher strength must not satisfy less: if one does, the script says where and ends with 1.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys

if __name__ == "__main__":  # requests.py must not hide the library of that name
    sys.path.append(sys.path.pop(0))

from recbole_dpr.arguments import exit_status
from recbole_dpr.data.phrasebook import Phrasebook
from recbole_dpr.data.prompts import PromptTable
from recbole_dpr.data.tasks import prompted_tasks
from recbole_dpr.errors import DPRError
from recbole_dpr.evaluation.evaluate import evaluate_tasks
from recbole_dpr.quick_start import load_data_and_model

TASKS = ("positive", "negative", "compound")
FIGURES = ("satisfied@10", "violation@10", "ndcg@10")
STRENGTHS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)

Swept = dict[float, dict[str, dict[str, float]]]


def sweep(run_dir: str, strengths: list[float]) -> Swept:
    """The figures of DPR by strength and task."""
    config, model, dataset, _, _, test = load_data_and_model(
        run_dir, None, {"show_progress": False}
    )
    if not config["promptable"]:
        raise DPRError(f"{run_dir} holds a {config['model']}, which reads no prompts")
    phrasebook = Phrasebook.load(config["phrasebook"], dataset.attributes.values)
    prompts = PromptTable(len(dataset.attributes))
    asked = prompted_tasks(
        test.dataset,
        phrasebook,
        prompts,
        config["task_seed"],
        "unseen",
        config["prompted_test_size"],
    )
    model.set_prompts(prompts.texts)
    swept: Swept = {}
    for strength in sorted(strengths):
        model.strength = strength
        metrics, _ = evaluate_tasks(model, asked, config, test.dataset, prompts)
        tasks = metrics["tasks"]
        swept[strength] = {
            task: {name: tasks[task]["DPR"][name] for name in FIGURES} for task in TASKS
        }
    return swept


def falls(swept: Swept) -> list[str]:
    """Where a higher strength satisfies less than the one before."""
    strengths = list(swept)
    return [
        f"{task}: satisfied@10 falls from strength {low:g} to {high:g}"
        for task in TASKS
        for low, high in itertools.pairwise(strengths)
        if swept[high][task]["satisfied@10"] < swept[low][task]["satisfied@10"]
    ]


def table(swept: Swept) -> str:
    """A table in Markdown: a row for each strength, Satisfied@10 / Violation@10 / NDCG@10 by task."""
    lines = ["| strength | " + " | ".join(TASKS) + " |", "|---:|" + "---|" * len(TASKS)]
    for strength, tasks in swept.items():
        cells = [" / ".join(f"{tasks[task][name]:.4f}" for name in FIGURES) for task in TASKS]
        lines.append(f"| {strength:g} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    """Print the table, and as the last line the figures as JSON; 1 if a figure falls."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("run_dir", metavar="RUN_DIR")
    parser.add_argument("--strengths", nargs="+", type=float, default=list(STRENGTHS))
    args = parser.parse_args()
    swept = sweep(args.run_dir, args.strengths)
    print("Satisfied@10 / Violation@10 / NDCG@10", table(swept), sep="\n\n", end="\n\n")
    falling = falls(swept)
    print("\n".join(falling) or "satisfied@10 never falls")
    print(json.dumps(swept))
    return int(bool(falling))


if __name__ == "__main__":
    sys.exit(exit_status(main))
