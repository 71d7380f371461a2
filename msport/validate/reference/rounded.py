"""The reference's second run, rounded as our side is; see ``noise``.

It runs each module right after the first run, while the module's weights are in memory, so that a model of any size is
read only once. Rotary frequencies, which every implementation computes itself in float32, move at random by one unit in
the last place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np

from msport.checkpoint.dtypes import Array
from msport.validate.compare.metrics import TokenErrors, concatenate, measure, relative_l2
from msport.validate.operations import EMBEDDING, FINAL_NORM, ROUTER
from msport.validate.precision import unit
from msport.validate.recording import layer_name
from msport.validate.reference.noise import Noise, NoisePlan, fields_of
from msport.validate.reference.walk import Entered, Passed, compute_logits, enter, through_layer

# Random steps are drawn once; each piece of a weight uses another part of them.
_PIECE = 1 << 20
_POOL = _PIECE + (1 << 16)
# One weight in four moves by one unit, which is half a unit as a root mean square.
_MOVING = 0.25


def noise_runs(plan: NoisePlan, model: Any, prompts: Sequence[Sequence[int]]) -> list[NoiseRun]:
    """One run of the beginnings of `prompts` for each of the plan's dtypes.

    The last one may modify the weights in place.
    """
    last = sorted(plan.dtypes, key=lambda dtype: dtype == plan.reference)
    return [NoiseRun(plan, dtype, model, prompts) for dtype in last]


class NoiseRun:
    """A second run of the beginnings of prompts, module by module after the first run."""

    def __init__(self, plan: NoisePlan, dtype: str, model: Any, prompts: Sequence[Sequence[int]]) -> None:
        self._beginnings = [ids[:length] for ids, length in zip(prompts, plan.lengths, strict=True)]
        self._dtype = dtype
        self._model = model
        self._rounding = _Rounding(plan, dtype)
        self._streams: list[Entered] = []
        self._head: list[tuple[Any, Any]] = []
        self._errors: list[list[TokenErrors]] = [[] for _ in self._beginnings]
        self._drift: list[float] = []
        self._router: list[float] = []

    def follow(self, passed: Passed) -> None:
        """Runs the module that the first run has just passed."""
        if passed.part == EMBEDDING:
            decoder, copies = self._model.get_decoder(), self._rounding.copies(passed.module)
            with self._rounding.frequencies(decoder.rotary_emb), _swapped(copies):
                self._streams = [enter(decoder, ids) for ids in self._beginnings]
            self._note_drift(passed.streams)
        elif passed.part == FINAL_NORM:
            with self._rounding.applied(passed.module):
                for number, stream in enumerate(self._streams):
                    self._streams[number] = replace(stream, hidden=passed.module(stream.hidden))
        else:
            self._follow_layer(passed)
            self._note_drift(passed.streams)

    def _follow_layer(self, passed: Passed) -> None:
        errors = []
        with self._rounding.applied(passed.module), _products(self._dtype):
            for number in range(len(self._streams)):
                self._streams[number], values = through_layer(
                    passed.module, passed.index, self._streams[number], self._model.config
                )
                router = values.get(ROUTER)
                if router is not None:
                    first = passed.tensors[layer_name(passed.index, ROUTER, number)][: len(router)]
                    errors.append(np.abs(router - first).max(axis=-1))
        self._router.append(float(np.median(np.concatenate(errors))) if errors else 0.0)

    def measure(self, number: int, start: int, logits: Array) -> None:
        """Compares with the first run's `logits` of prompt `number` from token `start` on."""
        count = min(len(logits), len(self._beginnings[number]) - start)
        if count <= 0:
            return
        self._head = self._head or self._rounding.copies(self._model.lm_head)
        with _swapped(self._head), _products(self._dtype):
            moved = compute_logits(self._model, self._streams[number].hidden[0, start : start + count])
        self._errors[number].append(measure(logits[:count], moved))

    def result(self) -> Noise:
        """The measured noise, after all modules have run."""
        tokens = tuple(fields_of(concatenate(errors)) for errors in self._errors)
        return Noise(self._dtype, tokens, tuple(self._drift), tuple(self._router))

    def _note_drift(self, first: Sequence[Entered]) -> None:
        errors = []
        for stream, other in zip(self._streams, first, strict=True):
            moved = stream.hidden[0].float().numpy()
            errors.append(relative_l2(other.hidden[0, : len(moved)].float().numpy(), moved).max(initial=0.0))
        self._drift.append(float(max(errors, default=0.0)))


class _Rounding:
    """How `plan` rounds weights if our side computes in `dtype`."""

    def __init__(self, plan: NoisePlan, dtype: str) -> None:
        import torch

        self._narrowed_to = None if plan.narrowed_to is None else getattr(torch, plan.narrowed_to)
        self._dtype = getattr(torch, dtype)
        self._moves = dtype == plan.reference
        generator = torch.Generator().manual_seed(plan.seed)
        drawn = torch.rand(_POOL, generator=generator)
        steps = (drawn < _MOVING / 2).float() - (drawn > 1 - _MOVING / 2).float()
        self._steps = (steps * unit(dtype)).to(self._dtype)
        self._signs = (torch.randint(0, 2, (_PIECE,), generator=generator) * 2 - 1).float() * unit("float32")
        self._piece = 0

    @contextmanager
    def applied(self, module: Any) -> Iterator[None]:
        """Rounds the weights of `module` during this context: in place in the last run, otherwise in copies."""
        if not self._moves:
            with _swapped(self.copies(module)):
                yield
            return
        for parameter in module.parameters():
            if self._narrowed_to is not None:
                parameter.data.copy_(parameter.data.to(self._narrowed_to))
            self._move(parameter.data)
        yield

    def copies(self, module: Any) -> list[tuple[Any, Any]]:
        """Each parameter of `module` with its rounded values."""
        return [(parameter, self._copy(parameter.data)) for parameter in module.parameters()]

    @contextmanager
    def frequencies(self, rotary: Any) -> Iterator[None]:
        """Moves the frequencies of the rotary embedding (buffers, not parameters) during this context."""
        kept = {name: value for name, value in rotary.named_buffers() if name.endswith("inv_freq")}
        for name, value in kept.items():
            setattr(rotary, name, value + value * self._signs[: value.numel()].reshape(value.shape))
        try:
            yield
        finally:
            for name, value in kept.items():
                setattr(rotary, name, value)

    def _copy(self, values: Any) -> Any:
        rounded = values if self._narrowed_to is None else values.to(self._narrowed_to)
        moved = rounded.to(self._dtype, copy=True)
        if self._moves:
            self._move(moved)
        return moved

    def _move(self, values: Any) -> None:
        if not values.is_contiguous():
            moved = values.contiguous()
            self._move(moved)
            values.copy_(moved)
            return
        flat = values.view(-1)
        for begin in range(0, len(flat), _PIECE):
            piece = flat[begin : begin + _PIECE]
            self._piece += 1
            place = self._piece * 7919 % (_POOL - _PIECE)
            piece.addcmul_(piece, self._steps[place : place + len(piece)])


@contextmanager
def _swapped(pairs: Sequence[tuple[Any, Any]]) -> Iterator[None]:
    """Each parameter holds its other values during this context."""
    with ExitStack() as stack:
        for parameter, values in pairs:
            stack.callback(setattr, parameter, "data", parameter.data)
            parameter.data = values
        yield


def _products(dtype: str) -> AbstractContextManager[Any]:
    """Lets float16 matrix products sum in float32 and round once, as hardware does; torch has no fast ones on CPU."""
    if dtype != "float16":
        return nullcontext()
    import torch
    from torch.overrides import TorchFunctionMode

    linear = torch.nn.functional.linear
    products = {linear, torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.bmm, torch.Tensor.bmm}

    class Products(TorchFunctionMode):
        def __torch_function__(
            self, function: Callable[..., Any], _types: Any, arguments: Any = (), options: Any = None
        ) -> Any:
            if function not in products:
                return function(*arguments, **(options or {}))
            wide = [value if value is None else value.float() for value in arguments]
            options = {name: value if value is None else value.float() for name, value in (options or {}).items()}
            return function(*wide, **options).half()

    return Products()
