"""``msport generate``."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from msport.architectures import load_config
from msport.cli.folders import find_folder
from msport.cli.parameters import parse_ids
from msport.cli.progress import PhaseBar
from msport.errors import UsageError
from msport.msmodels.sampling import SamplingConfig
from msport.msmodels.tokenizer import Tokenizer, load_tokenizer
from msport.phases import Phases

if TYPE_CHECKING:
    from msport.msmodels.model import LanguageModel

EXAMPLES = """\b
Examples:
  msport generate -p "What is a tensor?"
  msport generate gpt-oss-20b-ms -p - --temperature 0.7 --top-p 0.9 --seed 1 < question.txt
  msport generate --raw -p "Once upon a time" --max-new-tokens 200
  msport generate --ids 1,2,3
"""

# Caches come in steps of this length, so that prompts of about one size share one compiled graph.
_LENGTH_STEP = 512


@click.command(epilog=EXAMPLES)
@click.argument("folder", metavar="[DIR]", required=False)
@click.option("-p", "--prompt", metavar="TEXT", help="What to continue or answer; - reads it from stdin.")
@click.option("--ids", metavar="1,2,3", help="Token ids instead of text.")
@click.option("--max-new-tokens", type=click.IntRange(min=1), default=64, show_default=True)
@click.option("--temperature", type=float, default=0.0, show_default=True, help="0: always the likeliest token.")
@click.option(
    "--top-p", type=float, default=1.0, show_default=True, help="Draw from the likeliest tokens that reach it."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Equal seeds draw equal tokens.")
@click.option(
    "--chat/--raw", default=None, help="Through the chat template, or as it is.  [default: --chat if there is one]"
)
@click.option("--system", metavar="TEXT", help="System message of the chat.")
@click.option("--max-length", type=click.IntRange(min=1), metavar="N", help="Tokens of prompt and answer together.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16", "bfloat16", "mxfp4"]),
    help="What DIR computes in; mxfp4: experts packed.  [default: mxfp4 if DIR is, or the device's best]",
)
def command(
    folder: str | None,
    prompt: str | None,
    ids: str | None,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    seed: int,
    chat: bool | None,
    system: str | None,
    max_length: int | None,
    dtype: str | None,
) -> None:
    """Generate text with the converted checkpoint in DIR, token by token, on stdout.

    DIR is the current folder if that is a converted checkpoint, else the newest one directly below it.
    """
    SamplingConfig(temperature=temperature, top_p=top_p)  # refuses bad values before anything is loaded
    checkpoint = find_folder(folder)
    tokenizer = load_tokenizer(checkpoint)
    tokens = parse_ids(ids) if ids is not None else _encode(prompt, tokenizer, checkpoint, chat, system)
    length = _choose_length(len(tokens), max_new_tokens, max_length, load_config(checkpoint).max_position_embeddings)
    with PhaseBar() as progress:
        phases = Phases(progress)
        model = _load(checkpoint, dtype, length, phases)
    began = time.perf_counter()
    generated = model.generate(tokens, max_new_tokens, temperature=temperature, top_p=top_p, seed=seed)
    times = _print_tokens(generated, tokenizer, model.stop_ids)
    click.echo(_statistics(len(tokens), phases.seconds, [when - began for when in times]), err=True)


def _load(checkpoint: Path, dtype: str | None, length: int, phases: Phases) -> LanguageModel:
    """The model, with the graphs that generating needs: no word waits for one."""
    with phases.phase("starting"):
        from msport.msmodels.loading import load_model
    model = load_model(checkpoint, dtype=dtype, max_length=length, phases=phases)
    model.warm_up(phases)
    return model


def _encode(
    prompt: str | None, tokenizer: Tokenizer | None, folder: Path, chat: bool | None, system: str | None
) -> list[int]:
    if prompt is None:
        raise UsageError("there is no prompt; give text with -p TEXT (- for stdin) or token ids with --ids 1,2,3")
    if tokenizer is None:
        raise UsageError(f"{folder}: has no tokenizer.json; give the prompt as token ids: --ids 1,2,3")
    text = _read_stdin() if prompt == "-" else prompt
    if chat is False or (chat is None and not tokenizer.has_chat_template):
        if system is not None:
            raise UsageError("--system needs a chat; leave it out, or use --chat")
        return tokenizer.encode(text)
    messages = [{"role": "user", "content": text}]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    return tokenizer.encode(tokenizer.apply_chat_template(messages), add_special_tokens=False)


def _read_stdin() -> str:
    try:
        return sys.stdin.read().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise UsageError(f"stdin: the prompt is not {error.encoding} text; convert it first") from None


def _choose_length(prompt: int, new: int, stated: int | None, limit: int) -> int:
    """How long the caches must be; raises `UsageError` if the prompt leaves no room for a single token."""
    if stated is None:
        length = min(limit, -(-(prompt + new) // _LENGTH_STEP) * _LENGTH_STEP)
        remedy = "the model was made for no more; shorten the prompt"
    else:
        length, remedy = min(limit, stated), "shorten the prompt or raise --max-length"
    if prompt == 0:
        raise UsageError("the prompt is empty; give at least one token")
    if prompt >= length:
        raise UsageError(f"the prompt has {prompt} tokens and leaves no room in a length of {length}; {remedy}")
    return length


def _print_tokens(generated: Iterable[int], tokenizer: Tokenizer | None, stop_ids: frozenset[int]) -> list[float]:
    """Prints text, or ids where there is no tokenizer, as tokens come; returns when each came."""
    stream = tokenizer.stream() if tokenizer is not None else None
    times = []
    for token in generated:
        times.append(time.perf_counter())
        if stream is None:
            click.echo(f"{',' if len(times) > 1 else ''}{token}", nl=False)
        elif token not in stop_ids:
            click.echo(stream.add(token), nl=False)
    click.echo(stream.finish() if stream is not None else "")
    return times


def _statistics(prompt: int, phases: Mapping[str, float], times: Sequence[float]) -> str:
    """`times` are seconds from when the model got the prompt; `phases` came before that, one after the other."""
    text = f"{prompt} prompt tokens; {len(times)} generated"
    if len(times) > 1:
        text += f", {(len(times) - 1) / (times[-1] - times[0]):.1f} tokens/s"
    spent = {**phases, "first token": times[0], "total": sum(phases.values()) + times[-1]}
    return f"{text}; " + ", ".join(f"{name} {seconds:.2f} s" for name, seconds in spent.items())
