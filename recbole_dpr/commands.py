"""The commands of `python -m recbole_dpr`.

Imports stand inside the commands: `--help` should not wait for torch.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from os.path import expanduser
from pathlib import Path
from typing import Any

from recbole_dpr.arguments import HelpFormatter, Parser, exit_status
from recbole_dpr.errors import DPRError, some_of

EXAMPLES = """\
examples:
  python -m recbole_dpr train --model=DPR-SASRec --dataset=ml-100k
  python -m recbole_dpr recommend saved/DPR-SASRec-... --history 50 181 --prompt "a comedy"
  python -m recbole_dpr recommend saved/DPR-SASRec-... - < requests.jsonl > answers.jsonl
  python -m recbole_dpr serve saved/DPR-SASRec-...
"""
SHOWN = 40  # values, of what may be thousands; --json has them all
READER = "who reads the prompts in place of the run's own reader: shipped, large, or files; several decide together"


def build_parser() -> argparse.ArgumentParser:
    """One parser for each command; `train` takes what run_recbole_dpr.py takes."""
    parser = Parser(prog="python -m recbole_dpr", epilog=EXAMPLES, formatter_class=HelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, about: str, function: Callable[..., int]) -> argparse.ArgumentParser:
        made = commands.add_parser(
            name, help=about, description=about, formatter_class=HelpFormatter, allow_abbrev=False
        )
        made.set_defaults(function=function)
        return made

    command("train", "train a model, as run_recbole_dpr.py does", train)
    made = command("evaluate", "measure a run again; options as --key=value", evaluate)
    made.add_argument("run", help="run folder")
    made.add_argument("--json", action="store_true", help="print metrics.json's content")

    made = command("recommend", "the best items for a history and a prompt", recommend)
    made.add_argument("run", help="run folder")
    made.add_argument("requests", nargs="?", choices=["-"], help="read JSON lines from stdin")
    made.add_argument("--history", nargs="+", metavar="ITEM", help="item tokens, oldest first")
    made.add_argument(
        "--prompt",
        action="append",
        help="again for a second turn, and so on; one that begins with a minus is written --prompt=-horror",
    )
    made.add_argument("--k", type=int, default=10, help="number of items")
    made.add_argument("--strength", type=float, default=1.0, help="0 is no prompt, 1 as trained")
    made.add_argument("--include", nargs="+", default=[], metavar="VALUE", help="wanted values")
    made.add_argument("--exclude", nargs="+", default=[], metavar="VALUE", help="rejected values")
    made.add_argument(
        "--exclude_history",
        action=argparse.BooleanOptionalAction,
        help="leave the history out, or not; without it: as the run was trained",
    )
    made.add_argument("--strict", action="store_true", help="an unknown item is an error")
    made.add_argument("--explain", action="store_true", help="why each item stands where it does")
    made.add_argument("--index", metavar="PATH", type=expanduser, help="faiss index made by export")
    made.add_argument("--reader", nargs="+", metavar="NAME", help=READER)
    made.add_argument("--json", action="store_true", help="print one JSON object")

    made = command("export", "write the item vectors as a faiss index", export)
    made.add_argument("run", help="run folder")
    made.add_argument(
        "--faiss", required=True, metavar="PATH", type=expanduser, help="file to write"
    )
    made.add_argument("--kind", default="hnsw", help="exact, ivf or hnsw (default)")
    made.add_argument("--reader", nargs="+", metavar="NAME", help=READER)

    made = command("serve", "a web page and POST /recommend", serve)
    made.add_argument("run", help="run folder")
    made.add_argument("--host", default="127.0.0.1", help="127.0.0.1: this machine alone")
    made.add_argument("--port", type=int, default=8000)
    made.add_argument("--index", metavar="PATH", type=expanduser, help="faiss index made by export")
    made.add_argument("--reader", nargs="+", metavar="NAME", help=READER)

    made = command("info", "what a run folder holds", info)
    made.add_argument("run", help="run folder")
    made.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["train"]:
        import run_recbole_dpr

        return run_recbole_dpr.main(arguments[1:])

    def run() -> int:
        flags, rest = build_parser().parse_known_args(arguments)
        if flags.command == "evaluate":
            flags.options = rest
        elif rest:
            raise DPRError(f"unknown argument {rest[0]!r}; see --help")
        return flags.function(flags)

    try:
        return exit_status(run)
    except BrokenPipeError:  # whoever read the answers has gone
        sys.stderr.close()
        return 0


def train(flags: argparse.Namespace) -> int:
    """Only for --help; `main` hands everything else to run_recbole_dpr."""
    raise NotImplementedError


def evaluate(flags: argparse.Namespace) -> int:
    from recbole_dpr import quick_start
    from recbole_dpr.evaluation.tables import summary_table

    metrics = quick_start.evaluate(flags.run, command_line=flags.options)
    if flags.json:
        _print_json(metrics)
    else:
        print(summary_table(metrics))
    return 0


def recommend(flags: argparse.Namespace) -> int:
    if bool(flags.history) == (flags.requests == "-"):
        raise DPRError("give either --history ITEM ... or - for JSON lines on standard input")
    if "-" in (flags.history or ()):
        raise DPRError("- among the items of --history: JSON lines on standard input go without it")
    if flags.requests == "-":
        # Before a model is loaded.
        alone = build_parser().parse_args(["recommend", flags.run, "-"])
        ours = ("run", "requests", "index", "reader", "function")
        for name, value in vars(flags).items():
            if name not in ours and value != getattr(alone, name):
                raise DPRError(f"with - each request says its own {name}: leave --{name} out")
        n_failed = n_asked = 0
        for answer in answer_lines(_load(flags), sys.stdin.buffer):
            _print_json(answer)
            n_asked, n_failed = n_asked + 1, n_failed + ("error" in answer)
        if n_failed:
            print(f"{n_failed} of {n_asked} requests were wrong", file=sys.stderr)
        return 0
    recommender = _load(flags)
    from recbole_dpr.serving.requests import FIELDS, respond

    request = {name: getattr(flags, name) for name in FIELDS}
    response = respond(recommender, request)
    if flags.json:
        _print_json(response)
    else:
        print(_as_text(response, request))
    return 0


def answer_lines(recommender: Any, lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """An answer for each line that is not blank, in order; ``{"error": ..., "line": n}`` for one that is wrong."""
    from recbole_dpr.serving.requests import parse_request, respond

    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield respond(recommender, parse_request(line.decode()))
        except UnicodeDecodeError:
            yield {"error": "the request is no JSON: it is not UTF-8", "line": number}
        except DPRError as error:
            yield {"error": str(error), "line": number}


def _as_text(response: dict[str, Any], request: dict[str, Any]) -> str:
    from recbole_dpr.data.intent import in_words

    lines = []
    if request["prompt"]:
        lines.append(f"read as: {in_words(response['read']) or 'nothing that can be steered'}")
    if response["skipped"]:
        lines.append(f"{response['skipped']} unknown items of the history were skipped")
    if not response["items"]:
        lines.append("no item is left: all stand in the history, which is excluded")
    for place, row in enumerate(response["items"], start=1):
        line = f"{place:3}  {row['score']:8.3f}  {row['item']:>8}  {row['title']}"
        if "base" in row:
            line += (
                f"  (was {row['rank_before']}; {row['base']:.3f} {row['shift']:+.3f} shift "
                f"{row['semantic']:+.3f} semantic; {', '.join(row['values'])})"
            )
        lines.append(line)
    return "\n".join(lines)


def export(flags: argparse.Namespace) -> int:
    from recbole_dpr.serving.index import FaissIndex, check_kind, import_faiss, sample_users

    # Before anything takes time.
    import_faiss()
    check_kind(flags.kind)
    path = Path(flags.faiss)
    if not path.name or path.is_dir():
        raise DPRError(f"--faiss takes the path of a file, not {flags.faiss!r}")
    if not path.parent.is_dir():
        raise DPRError(f"--faiss: there is no folder {path.parent}")
    recommender = _load(flags)
    vectors = recommender.item_vectors()
    FaissIndex.build(vectors, flags.kind, sample_users(recommender)).save(flags.faiss)
    print(flags.faiss)
    return 0


def serve(flags: argparse.Namespace) -> int:
    from recbole_dpr.serving.web import import_uvicorn, serve_forever

    import_uvicorn()  # before anything takes time
    if not 0 <= flags.port <= 65535:
        raise DPRError(f"--port must be from 0 to 65535, not {flags.port}")
    serve_forever(_load(flags), flags.host, flags.port)
    return 0


def info(flags: argparse.Namespace) -> int:
    from recbole_dpr.run_folder import describe_run

    about = describe_run(flags.run)
    if flags.json:
        _print_json(about)
        return 0
    for name, value in about.items():
        if isinstance(value, list):
            value = some_of(value, SHOWN) + f" ({len(value)} in all)" * (len(value) > SHOWN)
        print(f"{name:>12}: {value}")
    return 0


def _print_json(content: Any) -> None:
    """One line, in UTF-8 whatever the locale: a title may hold any character."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")
    print(json.dumps(content, ensure_ascii=False), flush=True)


def _load(flags: argparse.Namespace) -> Any:
    from recbole_dpr import load

    index, reader = (getattr(flags, name, None) for name in ("index", "reader"))
    return load(flags.run, index=index, reader=reader)
