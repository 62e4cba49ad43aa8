"""One request as JSON: what `POST /recommend` and the lines of ``recommend RUN -`` look like.

    {"history": ["50", "181"], "prompt": "a comedy", "k": 5}

`FIELDS` is the schema; docs/serving.md tells it in words.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from recbole_dpr.data.catalogue import LONGEST
from recbole_dpr.errors import DPRError, did_you_mean
from recbole_dpr.serving.recommender import Recommender

Texts = list  # of strings

# Name: (types, default, what a wrong value is told). `prompt` is checked by the recommender.
FIELDS: dict[str, tuple[tuple[type, ...], Any, str]] = {
    "history": ((Texts,), None, "a list of item tokens (texts), oldest first"),
    "prompt": ((str, list, type(None)), None, "a text, null or a list of texts (turns)"),
    "k": ((int,), 10, "a whole number"),
    "strength": ((int, float), 1.0, "a number"),
    "exclude_history": ((bool, type(None)), None, "true, false or null (as the run was trained)"),
    "include": ((Texts,), [], "a list of attribute values"),
    "exclude": ((Texts,), [], "a list of attribute values"),
    "strict": ((bool,), False, "true or false"),
    "explain": ((bool,), False, "true or false"),
}


@dataclass(frozen=True)
class Limits:
    """What one request may ask of a server.

    Parameters
    ----------
    body : int
        Bytes.
    prompt : int
        Characters of all turns together.
    turns : int
    history : int
        Items.
    k : int
    seconds : float
        Until it is given up.
    """

    body: int = 64 * 1024
    prompt: int = 1000
    turns: int = 10
    history: int = LONGEST
    k: int = 100
    seconds: float = 10.0


def parse_request(content: str | bytes, limits: Limits | None = None) -> dict[str, Any]:
    """The fields of a request, defaults filled in.

    Raises
    ------
    DPRError
        If it is no JSON object, a field is unknown, missing or of the wrong type, or above a limit.
    """
    try:
        given = json.loads(content)
    except (ValueError, RecursionError) as error:
        reason = (
            str(error).splitlines()[0] if isinstance(error, json.JSONDecodeError) else "no text"
        )
        raise DPRError(f"the request is no JSON: {reason}") from None
    if not isinstance(given, dict):
        raise DPRError('the request must be a JSON object such as {"history": ["50"]}')
    for name in given:
        if name not in FIELDS:
            raise DPRError(f"unknown field {name[:40]!r}{did_you_mean(name[:40], FIELDS)}")
    if "history" not in given:
        raise DPRError('the field "history" is missing: a list of item tokens, oldest first')
    request = {name: given.get(name, default) for name, (_, default, _) in FIELDS.items()}
    for name, (types, _, wanted) in FIELDS.items():
        value = request[name]
        right = isinstance(value, types) and (bool in types or not isinstance(value, bool))
        if right and types == (Texts,):
            right = all(isinstance(entry, str) for entry in value)
        if not right:
            raise DPRError(f'"{name}" must be {wanted}')
    if limits is not None:
        _check(request, limits)
    return request


def _check(request: dict[str, Any], limits: Limits) -> None:
    prompt = request["prompt"]
    turns = prompt if isinstance(prompt, list) else [prompt or ""]
    asked = {
        "prompt, in characters,": (sum(len(str(turn or "")) for turn in turns), limits.prompt),
        "number of turns": (len(turns), limits.turns),
        "history, in items,": (len(request["history"]), limits.history),
        "k": (request["k"], limits.k),
    }
    for name, (value, limit) in asked.items():
        if value > limit:
            shown = value if value < 10**12 else "far more"
            raise DPRError(f"the {name} is limited to {limit} here, not {shown}")


def respond(recommender: Recommender, request: dict[str, Any]) -> dict[str, Any]:
    """Answer a request that `parse_request` gave.

    Returns
    -------
    dict
        ``items`` (each with ``item``, ``title``, ``score``), ``read`` (see `Recommender.read`) and
        ``skipped``. With ``explain``, the items hold what `Recommender.explain` tells, and so does
        ``before``: the best items without the prompt.

    Raises
    ------
    DPRError
        As `Recommender.recommend`.
    """
    asked = dict(request)
    explain = asked.pop("explain")
    history, prompt = asked.pop("history"), asked.pop("prompt")
    (answer,) = recommender.answer([history], [prompt], **asked)
    wishes = {name: asked[name] for name in ("include", "exclude")}
    response: dict[str, Any] = {
        "read": recommender.read(prompt, **wishes),
        "skipped": answer.skipped,
    }
    if not explain:
        titles = recommender.titles
        items = [{"item": t, "title": titles[t], "score": s} for t, s in answer.items]
        return {"items": items, **response}
    (before,) = recommender.answer(
        [history], [None], asked["k"], exclude_history=asked["exclude_history"]
    )
    lists = {"items": answer.items, "before": before.items}
    tokens = [token for found in lists.values() for token, _ in found]
    explained = recommender.explain(history, prompt, items=tokens, **asked)
    rows = {row["item"]: row for row in explained}
    return {
        **{name: [rows[token] for token, _ in found] for name, found in lists.items()},
        **response,
    }
