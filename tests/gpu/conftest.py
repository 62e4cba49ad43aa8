"""A GPU for machines that have none: its tensors lie in memory, but mix with others no more than a GPU's do.

What torch would refuse on a real GPU (tensors of two devices in one operation, a mask of the GPU on a tensor of
the CPU, a generator of the CPU, `numpy()`) is an error here as well; how fast it is and how it rounds shows on a real one only.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

from recbole_dpr.config import DPRConfig

# A type of device that torch knows in every build, whatever it was built for.
DEVICE = torch.device("lazy", 0)
CPU = torch.device("cpu")
aten = torch.ops.aten
MOVES = {aten._to_copy.default}
# Where the first tensor decides: it may be indexed by tensors of the CPU, or copied to from another device.
PUTS = {aten.index_put.default, aten.index_put_.default}
INDEXED = {aten.index.Tensor, *PUTS}
FIRST = {*INDEXED, aten.copy_.default}


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """The pretended GPU, which runs take for theirs."""
    own = DPRConfig._init_device

    def init_device(self: DPRConfig) -> None:
        own(self)
        if self.final_config_dict["use_gpu"]:
            self.final_config_dict["device"] = DEVICE

    monkeypatch.setattr(DPRConfig, "_init_device", init_device)
    # It knows no such device; RecBole and the loss enter it, switched off.
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    # In which torch makes no view of a tensor that only pretends.
    monkeypatch.setattr(torch._C, "_InferenceMode", lambda _: torch.no_grad())
    with PretendGPU():
        yield DEVICE


class OnGPU(Tensor):
    """A tensor that says it lies on the GPU, around one that lies in memory."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: Tensor) -> OnGPU:
        return Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=DEVICE,
        )

    def __init__(self, inner: Tensor) -> None:
        self.inner = inner

    def __repr__(self, **_: Any) -> str:
        return f"OnGPU({self.inner!r})"

    def __getitem__(self, index: Any) -> Tensor:
        return super().__getitem__(_index(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        super().__setitem__(_index(index), value)

    def tolist(self) -> Any:
        return self.inner.tolist()

    def numpy(self, **_: Any) -> Any:
        raise TypeError("a tensor of the GPU has no numpy(): take cpu() first")

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _dispatch(func, args, kwargs or {})


class PretendGPU(TorchDispatchMode):
    """Inside, `DEVICE` can be computed on."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _dispatch(func, args, kwargs or {})


def _dispatch(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    leaves = tree_leaves((args, kwargs))
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    there = [isinstance(tensor, OnGPU) for tensor in tensors]
    if any(there):
        _refuse(func, leaves, tensors)
    device = kwargs.get("device")
    if device is not None:
        gpu = torch.device(device).type == DEVICE.type
        kwargs = {**kwargs, "device": CPU}
    elif func in FIRST | MOVES:
        gpu = there[0]
    else:
        gpu = any(there)
    out = func(*tree_map(_inner, args), **tree_map(_inner, kwargs))
    if not gpu:
        return out
    wrapped = tree_map(lambda leaf: OnGPU(leaf) if isinstance(leaf, Tensor) else leaf, out)
    return return_and_correct_aliasing(func, args, kwargs, wrapped) if any(there) else wrapped


def _refuse(func: Any, leaves: list[Any], tensors: list[Tensor]) -> None:
    if func in INDEXED and not isinstance(tensors[0], OnGPU):
        raise RuntimeError(f"{func}: a tensor of the CPU is indexed by one of the GPU")
    meeting = tensors
    if func in FIRST | MOVES:
        meeting = tensors[-1:] if func in PUTS else []  # the values that are put
    if any(x.dim() and not isinstance(x, OnGPU) for x in meeting):
        raise RuntimeError(f"{func}: tensors of two devices, {[tuple(x.shape) for x in tensors]}")
    if any(isinstance(leaf, torch.Generator) for leaf in leaves):
        raise RuntimeError(f"{func}: a generator of the CPU draws no numbers on the GPU")


def _index(index: Any) -> Any:
    """The same index without lists: torch would make their tensors itself, on a device that only pretends."""
    if isinstance(index, tuple):
        return tuple(map(_index, index))
    return torch.tensor(index) if isinstance(index, list) else index


def _inner(leaf: Any) -> Any:
    return leaf.inner if isinstance(leaf, OnGPU) else leaf
