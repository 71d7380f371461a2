"""``msport generate``."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from msport.architectures import load_config
from msport.cli.answer import FINAL, Answer
from msport.cli.completion import folders
from msport.cli.folders import find_folder
from msport.cli.interruption import telling
from msport.cli.parameters import given, parse_ids, refuse_given
from msport.cli.progress import ProgressBar
from msport.cli.prompt import check_ids, encode_prompt, read_prompt
from msport.errors import UsageError
from msport.msmodels.sampling import SamplingConfig
from msport.msmodels.tokenizer import load_tokenizer
from msport.progress import Phases
from msport.report.formatting import counted

if TYPE_CHECKING:
    from msport.msmodels.model import LanguageModel

EXAMPLES = """\b
Examples:
  msport generate -p "What is a tensor?"
  msport generate gpt-oss-20b-ms -p - --temperature 0.7 --top-p 0.9 --seed 1 < question.txt
  msport generate --raw -p "Once upon a time" --max-new-tokens 200
  msport generate --ids 1,2,3
"""

# Lengths of KV caches are multiples of this, so that prompts of similar length share a compiled graph.
_LENGTH_STEP = 512


@click.command(epilog=EXAMPLES)
@click.argument("folder", metavar="[DIR]", required=False, shell_complete=folders)
@click.option(
    "-p",
    "--prompt",
    "prompts",
    multiple=True,  # so that a second one is refused; click would let it replace the first
    metavar="TEXT",
    help="Prompt; - reads it from stdin.",
)
@click.option("--ids", metavar="1,2,3", help="Prompt as token ids.")
@click.option("--max-new-tokens", type=click.IntRange(min=1), default=64, show_default=True)
@click.option("--temperature", type=float, default=0.0, show_default=True, help="0: always the most likely token.")
@click.option(
    "--top-p",
    type=float,
    default=1.0,
    show_default=True,
    help="Sample from the most likely tokens whose probabilities add up to it.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of sampling.")
@click.option(
    "--chat/--raw", default=None, help="Use the chat template, or the text as it is.  [default: --chat if there is one]"
)
@click.option("--system", metavar="TEXT", help="System message for the chat template.")
@click.option(
    "--max-length",
    type=click.IntRange(min=1),
    metavar="N",
    help="Length of the KV caches: tokens of prompt and answer together.",
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16", "bfloat16", "mxfp4"]),
    help="Dtype of computation; mxfp4: the device's best, for packed weights.  [default: the device's best]",
)
def command(
    folder: str | None,
    prompts: tuple[str, ...],
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

    If a model writes in channels, as gpt-oss does, only the channel final goes to stdout. Its reasoning (analysis) and
    other channels go to stderr under their names. Statistics and the reason why the text ended go to stderr too.

    DIR defaults to the current folder if that is a converted checkpoint, else to the newest one directly below it.
    """
    SamplingConfig(temperature=temperature, top_p=top_p)  # refuses bad values before anything is loaded
    _check_options(prompts, ids, chat, temperature)
    checkpoint = find_folder(folder)
    if folder is None:
        click.echo(f"model: {checkpoint if checkpoint.name else checkpoint.resolve()}", err=True)
    text = read_prompt(prompts[0]) if ids is None else None
    with (preparing := Phases()).phase("prompt"):
        config, tokenizer = load_config(checkpoint), load_tokenizer(checkpoint)
        if text is None:
            tokens = check_ids(parse_ids(ids or ""), config)
        else:
            tokens = encode_prompt(text, tokenizer, checkpoint, config, chat=chat, system=system)
    length = _choose_length(len(tokens), max_new_tokens, max_length, config.max_position_embeddings)
    with ProgressBar() as progress, telling(progress.where):
        phases = Phases(progress)
        model = _load(checkpoint, dtype, length, phases)
    began = time.perf_counter()
    generated = model.generate(tokens, max_new_tokens, temperature=temperature, top_p=top_p, seed=seed)
    answer = Answer(tokenizer, tokens)
    before = {**preparing.seconds, **phases.seconds}

    def spent(*reason: str) -> str:
        return _spent(before, [when - began for when in answer.times], *reason)

    with telling(lambda: f" after {counted(len(answer.tokens), 'token')}{spent()}"):
        answer.show(generated, model.stop_ids)
    reason = _why_it_ended(answer, model.stop_ids, max_new_tokens, length)
    click.echo(f"{len(tokens)} prompt tokens; {len(answer.tokens)} generated{spent(reason)}", err=True)


def _load(checkpoint: Path, dtype: str | None, length: int, phases: Phases) -> LanguageModel:
    """The loaded model, with the graphs for generating compiled, so that no token waits for a compilation."""
    with phases.phase("starting"):
        from msport.msmodels.loading import load_model
    model = load_model(checkpoint, dtype=dtype, max_length=length, phases=phases)
    model.warm_up(phases)
    return model


def _check_options(prompts: Sequence[str], ids: str | None, chat: bool | None, temperature: float) -> None:
    """Raises `UsageError` if an option makes another one useless; for a seed, only prints a note."""
    if len(prompts) > 1:
        raise UsageError(f"generate takes one prompt, not {len(prompts)}; run it once for each")
    if not prompts and ids is None:
        raise UsageError("there is no prompt; give text with -p TEXT (- for stdin) or token ids with --ids 1,2,3")
    if ids is not None:
        refuse_given("--ids goes to the model as it is", "prompts", "system", *(["chat"] if chat else []))
    if temperature == 0.0 and (ignored := given("top_p", "seed")):
        options = " and ".join(ignored)
        click.echo(f"note: no effect at --temperature 0, which does not sample: {options}", err=True)


def _choose_length(prompt: int, new: int, stated: int | None, limit: int) -> int:
    """The length of the KV caches, in tokens. Raises `UsageError` if the prompt leaves no room for a single token."""
    if stated is None:
        length = min(limit, -(-(prompt + new) // _LENGTH_STEP) * _LENGTH_STEP)
        remedy = "the model was made for no more; shorten the prompt"
    elif stated > limit:
        raise UsageError(f"--max-length {stated} is more than the {limit} positions that the model was made for")
    else:
        length, remedy = stated, "shorten the prompt or raise --max-length"
    if prompt >= length:
        raise UsageError(f"the prompt has {prompt} tokens and leaves no room in a length of {length}; {remedy}")
    return length


def _why_it_ended(answer: Answer, stop_ids: frozenset[int], max_new_tokens: int, length: int) -> str:
    if answer.tokens[-1] in stop_ids:
        return "end of text"
    full = len(answer.tokens) < max_new_tokens
    reason = f"the context of {length} tokens is full" if full else f"stopped at --max-new-tokens {max_new_tokens}"
    if answer.channel in (None, FINAL):
        return reason
    return f"{reason} in the channel {answer.channel}, before an answer"


def _spent(before: Mapping[str, float], times: Sequence[float], *reason: str) -> str:
    """Where the time went: seconds of the phases `before` the model got the prompt, and of the tokens after that."""
    rate = f", {(len(times) - 1) / (times[-1] - times[0]):.1f} tokens/s" if len(times) > 1 else ""
    spent = {**before, "first token": times[0]} if times else dict(before)
    spent["total"] = sum(before.values()) + (times[-1] if times else 0.0)
    return "; ".join((rate, *reason, ", ".join(f"{name} {seconds:.2f} s" for name, seconds in spent.items())))
