"""Bridges between RecBole 1.2.1 and today's NumPy, torch and pandas.

Every bridge names the RecBole issue that it stands in for and can go once RecBole has solved it.
None of them changes what another library does: they add names that are missing, or silence a
warning that only RecBole's own files can cause.

`recbole.quick_start` is not bridged. It imports ray 2.6.3, which needs `pkg_resources` and
`np.bool8` (RecBole #2215), and nothing of this package needs that module.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from recbole_dpr.errors import DPRError

# What `recbole.config.Config.compatibility_settings` (1.2.1) sets, by the names that both
# NumPy 1.26 and NumPy 2 know: `np.float_` and its like, which RecBole reads there, are gone.
NUMPY_ALIASES: dict[str, type] = {
    "bool": np.bool_,
    "int": np.int_,
    "float": np.float64,
    "complex": np.complex128,
    "object": np.object_,
    "str": np.str_,
    "long": np.int_,
    "unicode": np.str_,
}


def bridge_numpy() -> list[str]:
    """Give NumPy the aliases that RecBole's metrics and data set read (RecBole #2155, #2215).

    Only aliases that are missing are set; what NumPy has of its own (`np.bool` and `np.long`
    from NumPy 2 on) stays as it is.

    Returns
    -------
    list of str
        The aliases that this call added: empty from the second call on.
    """
    # vars(), because hasattr(np, "object") warns on NumPy 1.26.
    missing = [name for name in NUMPY_ALIASES if name not in vars(np)]
    for name in missing:
        setattr(np, name, NUMPY_ALIASES[name])
    return missing


# What pandas and torch say about RecBole's code: the beginning of the message, and RecBole's module.
QUIET = (
    # At every `fillna(inplace=True)`: pandas 3 will ignore it, so setup.cfg keeps pandas below 3.
    ("A value is trying to be set on a copy of a DataFrame or Series through chained", "data"),
    # `agg(len)` on a column of lists. Its result is the same in all of pandas 2.
    ("using <built-in function len> in Series.agg cannot aggregate", "data"),
    # RecBole's Trainer makes a scaler for mixed precision even where it is switched off.
    (r"`torch\.cuda\.amp\.GradScaler\(args\.\.\.\)` is deprecated", "trainer"),
    (r"`torch\.cuda\.amp\.autocast\(args\.\.\.\)` is deprecated", "trainer"),
)


def quiet_warnings() -> None:
    """Silence the warnings that RecBole's own files cause and no user can act on.

    By message and by RecBole's module: the same warning about anybody else's code still shows.
    """
    for message, module in QUIET:
        warnings.filterwarnings(
            "ignore", message, category=FutureWarning, module=rf"recbole\.{module}\."
        )


def undo_anomaly_detection() -> None:
    """Turn off what importing RecBole's models turns on.

    `recbole.model.sequential_recommender.sine` calls ``torch.autograd.set_detect_anomaly(True)`` when it
    is imported, which it always is: every backward pass of the process then searches all gradients for
    NaN, nearly twice the time of an epoch. This package checks each loss instead.
    """
    import torch

    torch.autograd.set_detect_anomaly(False)


@contextmanager
def process_group_of_one() -> Iterator[None]:
    """Let RecBole download a data set in a single process (RecBole #1989).

    `Dataset._download` ends with `torch.distributed.barrier()` even when nothing is distributed,
    and so fails after the download has succeeded. Inside this context there is a process group
    with this process as its only member; outside, everything is as it was.
    """
    from torch import distributed

    if not distributed.is_available() or distributed.is_initialized():
        yield
        return
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def load_recbole_checkpoint(path: str | Path, trust: bool = False) -> dict[str, Any]:
    """Read a checkpoint that RecBole itself has written (RecBole #2212, #2215).

    RecBole pickles its live `Config` into the file. From torch 2.6 on `torch.load` refuses such
    files, rightly: unpickling runs whatever code the file names. This package's own checkpoints
    are safetensors and never come this way.

    Parameters
    ----------
    path
        A `.pth` file of RecBole's `Trainer`.
    trust
        True says that you know who wrote the file and let it run code on this machine.

    Returns
    -------
    dict
        RecBole's keys: `state_dict`, `optimizer`, `config`, `epoch`, `best_valid_score`, and more.

    Raises
    ------
    DPRError
        If `trust` is False, or the file is missing or no checkpoint of RecBole's.
    """
    if not trust:
        raise DPRError(
            f"{path} is a pickle, and reading it runs the code that it names; if you know who "
            "made it, add --trust_checkpoint=True"
        )
    import torch

    bridge_numpy()
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=False)
    except FileNotFoundError:
        raise DPRError(f"there is no checkpoint {path}") from None
    except Exception as error:  # an unpickler raises anything
        raise DPRError(f"{path} cannot be read as a RecBole checkpoint: {error}") from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise DPRError(f"{path} is not a RecBole checkpoint: it has no 'state_dict'")
    return checkpoint
