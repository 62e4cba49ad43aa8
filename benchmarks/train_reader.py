"""Train a reader, the default one or one over another text encoder, and say how well it reads.

    python benchmarks/train_reader.py --out recbole_dpr/model/reader.safetensors   # reader "shipped"
    python benchmarks/train_reader.py --text_encoder NAME --out FILE.safetensors   # for --reader=FILE.safetensors

Every step reads sentences made afresh (benchmarks/reader/): two thirds about films and the genres of MovieLens,
one third about values of many domains, of which a prompt sees the ones that it speaks of among others drawn at random.
Half of what is said are whole utterances. The unseen and hard phrases of the phrasebooks, and the idioms, implied wishes and utterances kept out, are only measured. The shipped
one takes an hour on one CPU thread; nothing is downloaded. A training that was cut off goes on when the same command is given
again, after the last measurement (a file beside the reader's, which ends in .resume, keeps it until the end).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.append(sys.path.pop(0))  # so that requests.py does not hide the library of that name

from reader.held_out import exact, held_out
from reader.sentences import Sentences, film_titles
from reader.trainee import EncoderTrainee, ShippedTrainee, Trainee
from reader.training import Training
from reader.utterances import uttered_values
from recbole_dpr.arguments import exit_status
from recbole_dpr.files import read_yaml

RANK = 64
HERE = Path(__file__).resolve().parent


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", required=True, type=Path, help="file to write")
    parser.add_argument(
        "--text_encoder",
        help="folder or Hugging Face name; without it, the shipped reader is trained",
    )
    parser.add_argument(
        "--layers",
        type=int,
        help="upper ones of --text_encoder that are trained; default two thirds",
    )
    parser.add_argument(
        "--rank",
        type=int,
        help=f"of what is written of the change of each of their weights (as in LoRA, arXiv 2106.09685); default {RANK}",
    )
    parser.add_argument("--steps", type=int, default=7000)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--learning_rate", type=float, default=1e-3, help="of the new layers")
    parser.add_argument("--layers_learning_rate", type=float, default=2e-4)
    # Single steps misread now one frame, now another; their average does less.
    parser.add_argument("--averaging", type=float, default=0.998, help="of the weights")
    parser.add_argument(
        "--own",
        type=float,
        default=0.2,
        help="share of the encoder's own layers in those that are written (arXiv 2109.01903)",
    )
    parser.add_argument(
        "--utterances",
        type=float,
        default=0.5,
        help="share of what is said that are whole utterances, of reader/utterances/",
    )
    parser.add_argument(
        "--precision",
        default="bfloat16",
        choices=["bfloat16", "float32"],
        help="of the products; bfloat16 is twice as fast where the processor multiplies it",
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=2021)
    parser.add_argument("--log_every", type=int, default=500, help="steps between measurements")
    parser.add_argument(
        "--measured", type=int, default=800, help="made prompts of each kind of phrases"
    )
    args = parser.parse_args()
    if not args.text_encoder and (args.layers, args.rank) != (None, None):
        parser.error(
            "--layers and --rank are of --text_encoder: the shipped reader's are written whole"
        )
    args.rank = RANK if args.rank is None else args.rank
    if min(args.steps, args.batch_size, args.log_every, args.measured, args.rank) < 1:
        parser.error("--steps, --batch_size, --log_every, --measured and --rank must be 1 or more")
    if not 0 <= args.utterances <= 1:
        parser.error("--utterances is a share, from 0 to 1")
    folder = args.out.parent.is_dir() and not args.out.is_dir()
    if args.out.suffix != ".safetensors" or not folder:
        parser.error(f"--out must be a .safetensors file in a folder that is there, not {args.out}")
    return args


def domains_of(share: float) -> list[Sentences]:
    """Films, and many domains; `share` of what is said are whole utterances."""
    genres = list(read_yaml(HERE / "reader" / "implied.yaml"))
    values = [str(value) for value in read_yaml(HERE / "reader" / "values.yaml")["values"]]
    if share:
        values = list(dict.fromkeys([*values, *uttered_values("generic")]))
    return [
        Sentences("movies", genres, film_titles(), share),
        Sentences("generic", values, (), share),
    ]


def main() -> None:
    """Print the figures of what is only measured, and as the last line the same as JSON."""
    args = arguments()
    device = torch.device(args.device)
    torch.manual_seed(args.seed)
    trainee: Trainee = (
        EncoderTrainee(args.text_encoder, args.layers, args.rank, device)
        if args.text_encoder
        else ShippedTrainee(device)
    )
    domains = domains_of(args.utterances)
    measured = held_out(*domains, args.measured)
    trainee.to(device).keep_own_layers()
    training = Training(trainee, domains, args)
    progress = args.out.with_suffix(".resume")
    if progress.is_file():
        training.resume(progress)
        print(f"going on after step {training.done}, from {progress}", flush=True)
    losses: list[float] = []
    started = time.time() - training.seconds
    while training.done < args.steps:
        losses.append(training.step())
        step = training.done
        if step % args.log_every == 0 or step == args.steps:
            with training.average.applied(), trainee.interpolated(args.own):
                trainee.cut_down()
                figures = {name: exact(trainee, data) for name, data in measured.items()}
                trainee.save(args.out)
            seconds, mean = time.time() - started, float(np.mean(losses[-args.log_every :]))
            print(f"step {step} {seconds:.0f}s loss {mean:.4f} {figures}", flush=True)
            if step < args.steps:
                training.save(progress, seconds)
    progress.unlink(missing_ok=True)
    print(json.dumps({"seconds": round(time.time() - started), "read": figures}))


if __name__ == "__main__":
    sys.exit(exit_status(main))
