"""Where the property files lie, yaml in and out, and files that are written whole or not at all."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Hashable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from secrets import token_hex
from typing import Any

import yaml

from recbole_dpr.errors import DPRError

try:  # fifteen times as fast, where PyYAML was built with it
    from yaml import CSafeLoader as SafeLoader
except ImportError:
    from yaml import SafeLoader

# In the run folder:
CONFIG_FILE = "config.yaml"
METRICS_FILE = "metrics.json"  # of the training's own evaluation
RANKS_FILE = "ranks.json"  # of the targets, for tests of significance
HISTORY_FILE = "training.json"  # one entry per epoch


class YamlLoader(SafeLoader):
    """Plain yaml; `1e-3` is a number, as in RecBole; a key that is given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key!r} is given twice", key_node.start_mark
                )
            if isinstance(key, Hashable):
                seen.add(key)
        return super().construct_mapping(node, deep)


YamlLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9_]+)[eE][-+]?[0-9]+$"),
    list("-+0123456789."),
)


def known_phrasebooks() -> list[str]:
    """Names of the phrasebooks in `properties/phrasebook/`."""
    return sorted(path.stem for path in (properties_dir() / "phrasebook").glob("*.yaml"))


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a yaml file of options.

    Raises
    ------
    DPRError
        If the file is missing, no yaml, or holds something else than options.
    """
    try:
        content = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=YamlLoader)
    except FileNotFoundError:
        raise DPRError(f"there is no config file {path}") from None
    except OSError as error:
        raise DPRError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise DPRError(f"{path}{where} is not valid yaml: {reason}") from error
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise DPRError(f"{path} must hold lines of the form 'option: value'")
    return content


def no_run(folder: str | Path) -> str:
    """Why a folder is no run, in words; names some that lie in it, or beside where it should be."""
    folder = Path(folder)
    around = folder if folder.is_dir() else folder.parent
    runs = sorted(path.parent for path in around.glob(f"*/{CONFIG_FILE}"))
    there = f"; there is {', '.join(map(str, runs[-3:]))}" if runs else ""
    what = f"it has no {CONFIG_FILE}" if folder.is_dir() else "there is no such folder"
    return f"{folder} is not a run folder: {what}{there}"


def read_run_options(run_dir: str | Path) -> dict[str, Any]:
    """The options that a run has written to its folder.

    Raises
    ------
    DPRError
        If `config.yaml` is missing, cut off, or not what a run writes.
    """
    path = Path(run_dir) / CONFIG_FILE
    if not path.is_file():
        raise DPRError(no_run(run_dir))
    saved = read_yaml(path)
    lines = path.read_text(encoding="utf-8").splitlines()
    if not lines or lines[-1] != "..." or not {"model", "dataset"} <= saved.keys():
        raise DPRError(f"{path} is cut off or was not written by recbole_dpr; use another run")
    return saved


def properties_dir() -> Path:
    """The folder of the property files: in the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent
    for folder in (package / "properties", package.parent / "properties"):
        if (folder / "overall.yaml").is_file():
            return folder
    raise DPRError(f"the property files are missing beside {package}; install recbole_dpr again")


def recbole_dir() -> Path:
    """The folder of the installed `recbole` package, found without importing it."""
    spec = find_spec("recbole")
    if spec is None or not spec.submodule_search_locations:
        raise DPRError("RecBole is not installed; see docs/dependencies.md")
    return Path(spec.submodule_search_locations[0])


def plain(value: Any) -> Any:
    """Turn tuples, paths and NumPy numbers of a `config_dict` into what plain yaml can hold."""
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        return value.item()
    return value


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a new path beside `path`; the file that is written there takes its place in the end.

    A reader sees the old file or the new one, never a half. Where writing fails, the old one is still
    there, and nothing else.

    Raises
    ------
    OSError
        If the disk is full or the folder cannot be written to.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{token_hex(4)}")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(mode)  # safetensors lets nobody else read, such as a server's own user
        os.replace(temporary, path)
    finally:
        with suppress(OSError):  # nothing there, after all; what went wrong before says more
            temporary.unlink()


def write_text(path: str | Path, text: str) -> None:
    """Write a file, whole or not at all, and the folders that it lies in.

    Raises
    ------
    DPRError
        If the disk is full or the folder cannot be written to; an old file is still there then.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise DPRError(
            f"cannot write {path}: {error.strerror}; free some space or choose another folder"
        ) from error


def write_json(path: str | Path, content: Any, indent: int | None = 1) -> None:
    """`write_text` of a value as json; ``indent=None`` gives one long line, for thousands of numbers.

    Raises
    ------
    DPRError
        As `write_text`.
    """
    write_text(path, json.dumps(content, indent=indent, allow_nan=False) + "\n")
