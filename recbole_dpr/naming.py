"""What a model and a data set may be called."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from recbole_dpr.errors import DPRError, did_you_mean
from recbole_dpr.files import properties_dir, read_yaml, recbole_dir

PREFIX = "DPR-"
BUNDLED = "ml-100k"  # the data set that RecBole brings along


@dataclass(frozen=True)
class Model:
    """What a model's name, or a class, stands for.

    Attributes
    ----------
    name
        As RecBole writes it: "DPR-SASRec" for any of "dpr-sasrec", "DPR-SASREC", ...
    backbone
        "SASRec"; equal to `name` for a plain model.
    promptable
        True for `DPR-...` and for a class of the user's own.
    model_class
        The backbone's class.
    recbole_name
        The RecBole model whose property file holds the backbone's defaults.
    default_options
        Options that a class of the user's own declares.
    """

    name: str
    backbone: str
    promptable: bool
    model_class: type
    recbole_name: str
    default_options: Mapping[str, Any] = field(default_factory=dict)


@cache
def sequential_models() -> dict[str, str]:
    """RecBole's sequential models: the class's name by the module's (`{"sasrec": "SASRec"}`).

    Read off the source files, as RecBole keeps no list.
    """
    models = {}
    for file in sorted((recbole_dir() / "model" / "sequential_recommender").glob("[!_]*.py")):
        source = file.read_text(encoding="utf-8")
        found = re.search(
            rf"^class ({re.escape(file.stem)})\(", source, re.MULTILINE | re.IGNORECASE
        )
        if found:
            models[file.stem] = found[1]
    return models


def resolve_model(model: str | type) -> Model:
    """Find the model that a name or a class stands for.

    Raises
    ------
    DPRError
        If there is no such model, or it is not a sequential one.
    """
    if isinstance(model, type):
        return _resolve_class(model)
    if not isinstance(model, str):
        raise DPRError(f"a model is a name or a class, not {model!r}")
    prefixed = model.lower().startswith(PREFIX.lower())
    name = model[len(PREFIX) :] if prefixed else model
    backbone = sequential_models().get(name.lower())
    if backbone is None:
        raise DPRError(_unknown(model, name, prefixed))
    module = import_module(f"recbole.model.sequential_recommender.{backbone.lower()}")
    return Model(
        name=PREFIX + backbone if prefixed else backbone,
        backbone=backbone,
        promptable=prefixed,
        model_class=getattr(module, backbone),
        recbole_name=backbone,
    )


def model_of_run(run_dir: str | Path, saved: str, model: type | None = None) -> Model:
    """What the name in a finished run stands for; `model` is its class, if that is one of your own.

    Raises
    ------
    DPRError
        If the class is missing, or of another name.
    """
    if model is None:
        try:
            return resolve_model(saved)
        except DPRError as error:
            raise DPRError(
                f"{run_dir} holds a {saved}: {error}. From Python, a class of your own is given as model=..."
            ) from error
    resolved = resolve_model(model)
    if resolved.name != saved:
        raise DPRError(f"{run_dir} holds a {saved}, not a {model.__name__}")
    return resolved


def _unknown(model: str, name: str, prefixed: bool) -> str:
    models = sequential_models().values()
    if not name or model.upper() == "DPR":
        return "model 'DPR' needs a backbone, such as DPR-SASRec or DPR-GRU4Rec"
    others = {file.stem.lower() for file in (recbole_dir() / "properties/model").glob("*.yaml")}
    if name.lower() in others:
        return f"{name} is not one of RecBole's sequential models; take SASRec or GRU4Rec, say"
    known = [PREFIX + known for known in models]
    if prefixed:
        hint = did_you_mean(name, models).replace("'", f"'{PREFIX}", 1)
        return f"unknown backbone {name!r} in model {model!r}{hint or _choice(models)}"
    return f"unknown model {model!r}{did_you_mean(model, [*models, *known]) or _choice(known)}"


def _choice(names: Any) -> str:
    return "; the models are " + ", ".join(names)


def _resolve_class(model: type) -> Model:
    from recbole.model.abstract_recommender import SequentialRecommender

    if not issubclass(model, SequentialRecommender):
        raise DPRError(f"{model.__name__} must derive from RecBole's SequentialRecommender")
    if model.__module__ == f"recbole.model.sequential_recommender.{model.__name__.lower()}":
        return resolve_model(PREFIX + model.__name__)
    ancestors = [base.__name__ for base in model.__mro__]
    recbole_name = next((n for n in ancestors if n in sequential_models().values()), model.__name__)
    return Model(
        name=model.__name__,
        backbone=model.__name__,
        promptable=True,
        model_class=model,
        recbole_name=recbole_name,
        default_options=getattr(model, "default_options", {}),
    )


def check_dataset(name: str, data_path: str | Path) -> None:
    """Make sure that a data set of this name is there or can be got.

    Raises
    ------
    DPRError
        If it is neither a folder in `data_path`, nor one that RecBole brings or can download.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[\w.-]*\w[\w.-]*", name):
        raise DPRError(f"a data set is named by its folder in data_path, not {name!r}")
    root = Path(data_path)
    if (root / name).is_dir():
        return
    downloads = read_yaml(recbole_dir() / "properties" / "dataset" / "url.yaml")
    if name in downloads or name == BUNDLED:
        return
    shipped = {file.stem for file in (properties_dir() / "dataset").glob("*.yaml")}
    folders = {entry.name for entry in root.iterdir() if entry.is_dir()} if root.is_dir() else set()
    hint = did_you_mean(name, {*downloads, *shipped, *folders})
    kind = "" if name in shipped else "unknown "
    raise DPRError(
        f"{kind}data set {name!r}: there is no folder {root / name}, and RecBole has no download of "
        f"that name{hint if kind and hint else '; give the folder that holds it with --data_path'}"
    )
