"""CUDA without CUDA: torch's fake tensors, which have a device and a shape but no data, and ``Watch``, which looks on.

What mixes devices fails as it would on a GPU. What makes the host wait for the device, which fake tensors cannot answer
for want of data, is noted and answered: every question with yes, every choice of rows with all of them.
"""

from __future__ import annotations

import sys
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

import zipbatch
from zipbatch.checkpoints import PriorFolder, load_prior
from zipbatch.diffusion import Prior

CUDA = torch.device("cuda")
aten = torch.ops.aten
_CODE = zipbatch.__file__.removesuffix("__init__.py")
_QUESTIONS = {aten._local_scalar_dense.default, aten.equal.default, aten.nonzero.default}
_COPIES = {aten._to_copy.default, aten.copy_.default}


class Watch(TorchDispatchMode):
    """Notes what is launched on the device, what makes the host wait for it, and the memory that is taken there.

    Attributes:
        launched: operators on the device, by the name that they have in torch.
        waits: functions of ours in which the host waits for the device, as ``module.function``.
        noise: how many of the operators are launched by the noise.
        peak: the most bytes that tensors took on the device at once, parameters made before left out.
    """

    def __init__(self) -> None:
        super().__init__()
        self.launched: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()
        self.noise = self.peak = self._live = 0
        self._seen: set[int] = set()

    @property
    def operators(self) -> int:
        """How many were launched in all."""
        return self.launched.total()

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func.namespace == "aten" and func._can_decompose():  # in inference mode composites arrive whole
            with self:
                made = func.decompose(*args, **kwargs)
            if made is not NotImplemented:
                return made
        given = _tensors((args, kwargs))
        if func in _QUESTIONS:
            if any(one.is_cuda for one in given):
                self._wait()
            return _answer(func, args[0])
        if func is aten.is_pinned.default:
            return False
        if func is aten._pin_memory.default:  # which torch has no fake of
            return torch.empty_like(args[0])
        made = func(*args, **kwargs)
        self._note(func, given, _tensors(made), kwargs, args)
        return made

    def _note(self, func: Any, given: list[Tensor], made: list[Tensor], kwargs: Mapping[str, Any], args: Any) -> None:
        devices = {one.device.type for one in (*given, *made)}
        if func in _COPIES and devices == {"cpu", "cuda"}:
            if not (kwargs.get("non_blocking") or (func is aten.copy_.default and len(args) > 2 and args[2])):
                self._wait()
            elif not made[0].is_cuda:
                raise AssertionError(f"{_place()} reads what may not have arrived yet")
        if "cuda" in devices and not func.is_view and func.namespace == "aten":
            self.launched[str(func)] += 1
            self.noise += any(name == "diffusion.noise" for name, _ in _frames())
        known = {one.untyped_storage()._cdata for one in given}
        for one in made:
            if one.is_cuda and one.untyped_storage()._cdata not in known:  # no view, and nothing done in place
                self._take(one)

    def _wait(self) -> None:
        self.waits[_place()] += 1

    def _take(self, made: Tensor) -> None:
        """Count a new tensor's memory until it is gone; views share theirs."""
        storage = made.untyped_storage()
        if storage._cdata in self._seen:
            return
        size = storage.nbytes()
        self._seen.add(storage._cdata)
        self._live += size
        self.peak = max(self.peak, self._live)
        weakref.finalize(storage, self._give_back, storage._cdata, size)

    def _give_back(self, number: int, size: int) -> None:
        self._seen.discard(number)
        self._live -= size


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, Tensor)]


def _answer(func: Any, asked: Tensor) -> Any:
    if func is aten.nonzero.default:
        return torch.empty(asked.numel(), asked.dim(), dtype=torch.int64, device=asked.device)
    return True if asked.dtype == torch.bool or func is aten.equal.default else 0


def _frames() -> Iterator[tuple[str, str]]:
    """Our own functions that are being run, the innermost first: module and name."""
    frame = sys._getframe(1)
    while frame is not None:
        if (file := frame.f_code.co_filename).startswith(_CODE):
            yield file.removeprefix(_CODE).removesuffix(".py").replace("/", "."), frame.f_code.co_name
        frame = frame.f_back


def _place() -> str:
    module, name = next(_frames(), ("elsewhere", ""))
    return f"{module}.{name}"


def _moved(module: nn.Module, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """``Module._apply`` for fake parameters: torch swaps these in place, which it refuses when they are referred to."""
    for own in module.modules():
        for name, one in own._parameters.items():
            if one is not None:
                own._parameters[name] = nn.Parameter(fn(one.detach()), requires_grad=one.requires_grad)
        for name, one in own._buffers.items():
            if one is not None:
                own._buffers[name] = fn(one)
    return module


def as_fake(module: nn.Module) -> nn.Module:
    """A module with fake parameters and buffers of the same shapes, in the mode that is on."""
    return _moved(module, lambda one: torch.empty(one.shape, dtype=one.dtype, device=one.device))


def fake_prior(folder: PriorFolder) -> Prior:
    """``load_prior`` for the mode that is on: read for real, as the bytes of a file are no fake's, then faked."""
    with unset_fake_temporarily():
        prior = load_prior(folder)
    return as_fake(prior)


def _backward(loss: Tensor) -> None:
    waiting, seen = [loss.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        waiting.extend(before for before, _ in node.next_functions)
        if (leaf := getattr(node, "variable", None)) is not None:
            leaf.grad = torch.empty_like(leaf)


@contextmanager
def fake_cuda() -> Iterator[None]:
    """Within, tensors are fake, and may be on a CUDA device of a kind that has bfloat16.

    A pass back needs a CUDA context of torch: what it leaves in ``grad`` is made up.
    """
    with pytest.MonkeyPatch.context() as patch, FakeTensorMode(allow_non_fake_inputs=True):
        patch.setattr(nn.Module, "_apply", _moved)
        patch.setattr(Tensor, "backward", _backward)
        patch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
        patch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
        patch.setattr(torch.cuda, "current_stream", lambda _: SimpleNamespace(synchronize=lambda: None))
        patch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
        patch.setattr("zipbatch.stages.purify.build.load_prior", fake_prior)
        yield
