"""Runs the reference one decoder layer at a time: every prompt passes through a layer before the next layer runs.

So only the weights of one layer need memory, and every block's input and output can be recorded. Masks, rotary tables
and the scaled embedding come from Transformers: its model first runs with layers that only record their arguments, and
the real layers are then called with these arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from msport.checkpoint.dtypes import Array
from msport.validate import operations
from msport.validate.operations import (
    ATTENDED,
    ATTENTION,
    CHOSEN,
    EMBEDDING,
    EXPERTS,
    FINAL_NORM,
    MLP_NORM,
    OUTPUT,
    ROTARY,
    ROUTER,
    SHARES,
)
from msport.validate.recording import layer_name

# Makes the weights of a module, given by its prefix in the checkpoint, available during a context.
Provide = Callable[[Any, str], AbstractContextManager[None]]

# Limit in bytes of the attention scores of one layer; eager attention holds about five copies of them.
_SCORE_BYTES = 1 << 30
_SCORE_COPIES = 5
_SMALLEST_CHUNK = 16
# Logits computed at a time.
_HEAD_BYTES = 1 << 28


class _AllSeen(Exception):  # noqa: N818  ends a pass early; not an error
    """Every layer has recorded its arguments."""


@dataclass(frozen=True, slots=True)
class Entered:
    """One prompt: its residual stream ``[1, tokens, hidden]``, and the keyword arguments of each layer to come."""

    hidden: Any
    arguments: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Passed:
    """A module that has just run on every prompt; its weights are in memory until the next module is requested.

    `part` is its name in a recording, `index` its number if it is a layer. `tensors` are the tensors to record, by
    their names in the recording, and `streams` the prompts after it.
    """

    part: str
    module: Any
    tensors: dict[str, Array]
    streams: Sequence[Entered]
    index: int = -1


def walk(
    model: Any, prompts: Sequence[Sequence[int]], provide: Provide, *, every_operation: bool, chunk: int | None = None
) -> Iterator[Passed]:
    """Runs `prompts` through the embedding, the layers and the final norm, and yields each of these in order.

    Of a layer the tensors are its output, the residual stream after attention and the chosen experts, or with
    `every_operation` all operations. `head_logits` gives the head's logits. `chunk` sets the number of tokens per pass
    through attention.
    """
    import torch

    decoder = model.get_decoder()
    with torch.inference_mode():
        with provide(decoder.embed_tokens, "model.embed_tokens."):
            streams = [enter(decoder, ids) for ids in prompts]
            tensors = {f"{EMBEDDING}.{number}": _host(each.hidden) for number, each in enumerate(streams)}
            yield Passed(EMBEDDING, decoder.embed_tokens, tensors, streams)
        for index, layer in enumerate(decoder.layers):
            recorded: dict[str, Array] = {}
            with provide(layer, f"model.layers.{index}."):
                for number in range(len(streams)):
                    streams[number], values = through_layer(
                        layer, index, streams[number], model.config, every_operation, chunk
                    )
                    recorded |= {layer_name(index, name, number): array for name, array in values.items()}
                yield Passed(f"layers.{index}", layer, recorded, streams, index)
        with provide(decoder.norm, "model.norm."):
            normed = {f"{FINAL_NORM}.{number}": _host(decoder.norm(each.hidden)) for number, each in enumerate(streams)}
            yield Passed(FINAL_NORM, decoder.norm, normed, streams)


def head_logits(model: Any, normed: Mapping[int, Array], provide: Provide) -> Iterator[tuple[int, int, Array]]:
    """Runs the head, including the soft-cap, on the normed states ``[tokens, hidden]`` of each prompt.

    Yields prompt number, first token and float32 logits ``[n, vocab]``; the head's weights are in memory meanwhile.
    """
    import torch

    rows = max(1, _HEAD_BYTES // (4 * int(model.config.vocab_size)))
    with torch.inference_mode(), provide(model.lm_head, "lm_head."):
        for number, states in normed.items():
            for start in range(0, len(states), rows):
                logits = compute_logits(model, torch.from_numpy(states[start : start + rows]))
                yield number, start, logits


def compute_logits(model: Any, states: Any) -> Array:
    """Float32 logits ``[n, vocab]`` of the normed states ``[n, hidden]``."""
    import torch
    from transformers.modeling_outputs import MoeModelOutputWithPast

    dtype = next(model.lm_head.parameters()).dtype
    output = MoeModelOutputWithPast(last_hidden_state=states[None].to(dtype))
    with _replaced(model.get_decoder(), lambda *_args, **_kwargs: output):
        return _host(model(input_ids=torch.zeros((1, len(states)), dtype=torch.long)).logits)


def enter(decoder: Any, ids: Sequence[int]) -> Entered:
    """Runs Transformers' own model up to the first layer, and records the keyword arguments of each layer."""
    import torch

    seen: list[tuple[Any, dict[str, Any]]] = []

    def note(hidden: Any, **arguments: Any) -> tuple[Any]:
        seen.append((hidden, arguments))
        if len(seen) == len(decoder.layers):
            raise _AllSeen
        return (hidden,)

    with ExitStack() as stack:
        for layer in decoder.layers:
            stack.enter_context(_replaced(layer, note))
        with suppress(_AllSeen):
            decoder(input_ids=torch.tensor([list(ids)]), use_cache=False)
    return Entered(seen[0][0], tuple(arguments for _, arguments in seen))


@contextmanager
def _replaced(module: Any, forward: Callable[..., Any]) -> Iterator[None]:
    module.forward = forward
    try:
        yield
    finally:
        del module.forward


def through_layer(
    layer: Any, index: int, prompt: Entered, config: Any, every_operation: bool = False, chunk: int | None = None
) -> tuple[Entered, dict[str, Array]]:
    """`prompt` after the next layer, number `index`, and the recorded operations.

    It runs in chunks with a cache if its attention scores would not fit.
    """
    import torch
    from transformers import DynamicCache

    tokens = prompt.hidden.shape[1]
    chunk = chunk or _chunk(config, tokens)
    cache = DynamicCache()
    pieces: list[dict[str, Any]] = []
    for start in range(0, tokens, chunk):
        end = min(start + chunk, tokens)
        arguments = _slice(prompt.arguments[0], start, end) | {"past_key_values": cache, "use_cache": True}
        with _watching(layer, every_operation) as values:
            output = layer(prompt.hidden[:, start:end], **arguments)
        values[OUTPUT] = output[0] if isinstance(output, tuple) else output
        pieces.append(values)
    hidden = torch.cat([piece[OUTPUT] for piece in pieces], dim=1)
    recorded = {name: _host(torch.cat([_rows(piece[name]) for piece in pieces])) for name in pieces[0]}
    if every_operation:
        keys = cache.layers[index].keys[0]  # [heads, tokens, head_dim]
        recorded[ROTARY] = _host(keys.transpose(0, 1).reshape(tokens, -1))
    return Entered(hidden, prompt.arguments[1:]), recorded


def _chunk(config: Any, length: int) -> int:
    row_bytes: int = config.num_attention_heads * length * 4 * _SCORE_COPIES
    return max(_SMALLEST_CHUNK, min(length, _SCORE_BYTES // row_bytes))


def _slice(arguments: Mapping[str, Any], start: int, end: int) -> dict[str, Any]:
    """The arguments of a layer for tokens ``[start, end)``; the earlier ones are in its cache."""
    sliced = dict(arguments)
    for name in ("position_ids", "cache_position"):
        if sliced.get(name) is not None:
            sliced[name] = sliced[name][..., start:end]
    if sliced.get("attention_mask") is not None:
        sliced["attention_mask"] = sliced["attention_mask"][:, :, start:end, :end]
    sliced["position_embeddings"] = tuple(table[:, start:end] for table in sliced["position_embeddings"])
    return sliced


@contextmanager
def _watching(layer: Any, every_operation: bool) -> Iterator[dict[str, Any]]:
    """Collects the outputs of the operations of `layer` during one pass, by their names."""
    values: dict[str, Any] = {}
    modules = operations.find_modules(layer)
    hooks = [modules[MLP_NORM].register_forward_pre_hook(_keep_input(values, ATTENDED))]
    if ROUTER in modules:
        hooks.append(modules[ROUTER].register_forward_pre_hook(_keep_routing(values, modules[EXPERTS])))
    if every_operation:
        hooks.append(modules["o_proj"].register_forward_pre_hook(_keep_input(values, ATTENTION)))
        if ROUTER not in modules:
            hooks.append(modules["down_proj"].register_forward_pre_hook(_keep_input(values, operations.ACTIVATION)))
        hooks += [m.register_forward_hook(_keep_output(values, name)) for name, m in modules.items() if name != ROUTER]
    try:
        yield values
    finally:
        for hook in hooks:
            hook.remove()


def _keep_input(values: dict[str, Any], name: str) -> Callable[..., None]:
    def hook(_module: Any, arguments: tuple[Any, ...]) -> None:
        values[name] = arguments[0]

    return hook


def _keep_output(values: dict[str, Any], name: str) -> Callable[..., None]:
    def hook(_module: Any, _arguments: Any, output: Any) -> None:
        values[name] = output[0] if isinstance(output, tuple) else output

    return hook


def _keep_routing(values: dict[str, Any], block: Any) -> Callable[..., None]:
    """Keeps the router's logits, chosen experts and their weights; releases return some of them, in various shapes."""
    import torch

    def hook(router: Any, arguments: tuple[Any, ...]) -> None:
        hidden = arguments[0].reshape(-1, arguments[0].shape[-1])
        logits = torch.nn.functional.linear(hidden, router.weight, getattr(router, "bias", None))
        top, chosen = torch.topk(logits.float(), getattr(router, "top_k", None) or block.top_k, dim=-1)
        normalize = getattr(router, "norm_topk_prob", getattr(block, "norm_topk_prob", True))
        shares = torch.softmax(logits.float(), dim=-1).gather(1, chosen)
        values[ROUTER] = logits
        values[CHOSEN] = chosen
        values[SHARES] = torch.softmax(top, dim=-1) if normalize else shares

    return hook


def _rows(value: Any) -> Any:
    """``[tokens, features]`` of a value with a batch of one and any axes between."""
    if value.dim() > 2:
        value = value[0]
    return value.reshape(value.shape[0], -1)


def _host(value: Any) -> Array:
    import torch

    value = value[0] if value.dim() > 2 else value
    array: Array = value.to(torch.int32 if not value.is_floating_point() else torch.float32).numpy()
    return np.array(array)
