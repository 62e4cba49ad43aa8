import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch

from recbole_dpr import compat
from recbole_dpr.errors import DPRError


def test_a_second_call_adds_nothing():
    compat.bridge_numpy()
    assert compat.bridge_numpy() == []


def test_what_numpy_has_of_its_own_stays():
    """In a process of its own: here some other test may have made the bridge already."""
    program = """
import numpy as np
before = dict(vars(np))
from recbole_dpr import compat
added = compat.bridge_numpy()
after = vars(np)
assert set(after) - set(before) == set(added), added
assert all(after[name] is before[name] for name in before)
assert set(added) <= set(compat.NUMPY_ALIASES)
assert np.float is np.float64 and np.unicode is np.str_
assert ("long" in added) == (int(np.__version__[0]) < 2)
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)


def test_recboles_metrics_run_with_the_aliases():
    from recbole.evaluator.metrics import NDCG

    compat.bridge_numpy()
    metric = NDCG({"topk": [2], "metric_decimal_place": 4})
    hit = metric.metric_info(np.array([[False, True]]), np.array([1]))
    assert hit[0, 1] == pytest.approx(1 / np.log2(3))


def test_aliases_are_those_that_recbole_sets():
    import inspect
    import re

    from recbole.config import Config

    source = inspect.getsource(Config.compatibility_settings)
    assert set(re.findall(r"np\.(\w+) = ", source)) == set(compat.NUMPY_ALIASES)


def test_only_recboles_own_warnings_are_silenced():
    message = "A value is trying to be set on a copy of a DataFrame or Series through chained x"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        compat.quiet_warnings()
        for module in ("recbole.data.dataset.dataset", "somebody.elses"):
            warnings.warn_explicit(message, FutureWarning, "file.py", 1, module=module)
        warnings.warn_explicit(
            "something new", FutureWarning, "file.py", 2, module="recbole.data.dataset.dataset"
        )
    assert [(str(w.message), w.lineno) for w in caught] == [(message, 1), ("something new", 2)]


def test_a_barrier_needs_the_bridge_and_leaves_nothing_behind():
    with pytest.raises((ValueError, RuntimeError)):
        torch.distributed.barrier()
    with compat.process_group_of_one():
        torch.distributed.barrier()
    assert not torch.distributed.is_initialized()


def test_the_process_group_goes_when_the_download_fails():
    with pytest.raises(OSError), compat.process_group_of_one():
        raise OSError("no network")
    assert not torch.distributed.is_initialized()


class Pickled:
    """Stands for the live Config in RecBole's checkpoints: no tensor, so torch.load refuses it."""


def test_a_recbole_checkpoint_is_read_on_trust_only(tmp_path):
    path = tmp_path / "SASRec.pth"
    torch.save({"state_dict": {"weight": torch.ones(2)}, "config": Pickled()}, path)
    with pytest.raises(DPRError, match="--trust_checkpoint=True"):
        compat.load_recbole_checkpoint(path)
    loaded = compat.load_recbole_checkpoint(path, trust=True)
    assert torch.equal(loaded["state_dict"]["weight"], torch.ones(2))


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "there is no checkpoint"), (b"no checkpoint", "cannot be read"), ([1], "state_dict")],
)
def test_something_else_than_a_checkpoint(tmp_path, content, says):
    path = tmp_path / "file.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(DPRError, match=says):
        compat.load_recbole_checkpoint(path, trust=True)


def test_the_main_path_never_imports_ray():
    program = """
import sys
import recbole_dpr.config, recbole.trainer, recbole.data
assert "ray" not in sys.modules and "recbole.quick_start" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
