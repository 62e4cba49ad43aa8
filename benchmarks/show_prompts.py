"""Ask a trained run the sentences of sentences.yaml and write what it reads and does into docs/prompts.md.

    python benchmarks/show_prompts.py RUN_DIR

The page's own words stay; what stands between its two markers is replaced.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.append(sys.path.pop(0))  # so that requests.py does not hide the library of that name

from asking import histories_of
from recbole_dpr import load
from recbole_dpr.arguments import exit_status
from recbole_dpr.data.intent import Intent
from recbole_dpr.files import read_yaml, write_text
from recbole_dpr.serving.recommender import Recommender

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "prompts.md"
BEGIN, END = "<!-- sentences: begin -->", "<!-- sentences: end -->"
TITLES = {
    "positive": "Wishes",
    "negative": "Rejections",
    "compound": "Both at once",
    "implicit": "Wishes that name no genre",
    "none": "Nothing is asked for",
}
K = 4


def said(intent: Intent, values: list[str]) -> str:
    """An intent in signs: "+Comedy -Horror"."""
    signs = [f"+{values[v]}" for v in intent.include] + [f"-{values[v]}" for v in intent.exclude]
    return " ".join(signs) or "nothing"


def titles(recommender: Recommender, recommended: list[tuple[str, float]]) -> list[str]:
    """The titles of recommended items."""
    names = dict(zip(recommender.catalogue.tokens, recommender.catalogue.titles, strict=True))
    return [names[token] for token, _ in recommended]


def sections(recommender: Recommender, history: list[str]) -> str:
    """One table for each kind of sentence."""
    values = recommender.catalogue.attributes.values
    before = titles(recommender, recommender.recommend([history], [None], K)[0])
    seen = titles(recommender, [(token, 0.0) for token in history[-5:]])
    lines = [
        f"One user, whose last five films are {'; '.join(seen)}. Before any prompt, the list begins with "
        f"**{'; '.join(before)}**. A title in italics was there before, too."
    ]
    right = total = 0
    for kind, rows in read_yaml(HERE / "sentences.yaml").items():
        texts = [text for *_, text in rows]
        include, exclude = recommender.model.read(texts)
        lists = recommender.recommend([history] * len(texts), texts, K)
        lines += [
            "",
            f"### {TITLES[kind]}",
            "",
            "| sentence | read | list after |",
            "|---|---|---|",
        ]
        for i, (wanted, unwanted, text) in enumerate(rows):
            gold = Intent(
                *(tuple(sorted(map(values.index, s.split()))) for s in (wanted, unwanted))
            )
            read = Intent.of(include[i], exclude[i])
            mark = "" if read == gold else f" **(meant: {said(gold, values)})**"
            right, total = right + (read == gold), total + 1
            after = [
                f"*{title}*" if title in before else title
                for title in titles(recommender, lists[i])
            ]
            lines.append(f"| {text} | {said(read, values)}{mark} | {'; '.join(after)} |")
    lines += ["", f"Read exactly right: {right} of {total}."]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("run_dir", metavar="RUN_DIR")
    parser.add_argument("--seed", type=int, default=2026, help="which user")
    args = parser.parse_args()
    recommender = load(args.run_dir)
    (history,) = histories_of(args.run_dir, 1, args.seed)
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    made = sections(recommender, history)
    write_text(PAGE, f"{before}{BEGIN}\n{made}\n{END}{after}")


if __name__ == "__main__":
    sys.exit(exit_status(main))
