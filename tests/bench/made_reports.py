"""Reports with numbers that a person can check."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from msport.architectures import ARCHITECTURES
from msport.bench.measure.limits import Limits, Probe
from msport.bench.measure.loop import Run
from msport.bench.measure.session import Compilation, Result, Session, Startup
from msport.bench.measure.workload import Workload
from msport.bench.measurements import Setup
from msport.bench.report import BenchReport
from msport.bench.suites import Unavailable
from msport.sizing.process import Memory

FAMILY = ARCHITECTURES["GptOssForCausalLM"]
CONFIG = FAMILY.parse(FAMILY.sample_config(), Path("config.json"))
WORKLOAD = Workload(prompt_tokens=100, new_tokens=4)
TOKENS = ((1, 2, 3, 4),)

STARTUP = Startup(
    (2.0, 2.0, 2.0),
    (1.5, 0.5, 0.5),
    cold=Compilation(3.0, 1.0),
    warm=Compilation(0.2, 0.1),
    graphs=2,
    cached=2,
    cache_nbytes=1000,
)
SESSION = Session(
    engine="msport",
    versions={"msport": "0.1.0", "mindspore": "2.10.0"},
    device="CPU",
    dtype="float32",
    max_length=104,
    details={"operators": "cpu", "prefill_chunk": 104, "cached_graphs": 0},
    import_seconds=2.0,
    load_seconds=0.5,
    start=Run(0.2, 0.3, (0.03,), ((1, 2),)),
    compilation=Compilation(3.0, 1.0),
    loaded=Memory(600_000_000, 100_000_000, 400_000_000),
    memory=Memory(3_000_000_000, 1_000_000_000, 2_000_000_000),
    peaks=(3_000_000_000, 2_900_000_000),
    results=(
        Result(
            WORKLOAD,
            (
                Run(0.1, 0.2, (0.01, 0.02, 0.03), TOKENS),
                Run(0.1, 0.2, (0.02, 0.02, 0.02), TOKENS, process=1),
            ),
        ),
    ),
    startup=STARTUP,
)
BASELINE = replace(
    SESSION,
    engine="transformers",
    versions={"torch": "2.13.0", "transformers": "4.57.1"},
    details={"attention": "eager", "threads": 2},
    compilation=None,
    startup=None,
    results=(Result(WORKLOAD, (Run(0.3, 0.3, (0.05, 0.05, 0.05), ((1, 2, 9, 9),)),)),),
)
LIMITS = Limits((Probe("reading", 2e10, 1.9e10, 9),), (Probe("multiplying", 2e11, 1.9e11, 9),))
SETUP = Setup(
    folder="model-ms",
    architecture=CONFIG.architecture,
    source="org/model",
    revision=None,
    checkpoint="0" * 64,
    device="CPU",
    device_memory=None,
    processor="A processor",
    threads=2,
    load_average=0.1,
    started="2026-11-21T08:00:00+00:00",
    suite=None,
    warmup=1,
    repeats=2,
    processes=2,
    seed=0,
)
REPORT = BenchReport(SETUP, {"float32": LIMITS}, (SESSION,), config=CONFIG)
COMPARED = replace(REPORT, baselines=(BASELINE,))

# Two batches of two prompts in two dtypes, beside Transformers, and a dtype that the device lacks.
GRID = replace(
    REPORT,
    setup=replace(SETUP, suite="grid"),
    limits={"float32": LIMITS, "float16": LIMITS},
    sessions=tuple(
        replace(
            SESSION,
            dtype=dtype,
            results=tuple(replace(SESSION.results[0], workload=Workload(prompt, 4, batch)) for prompt in (64, 100)),
            startup=STARTUP if batch == 1 else replace(STARTUP, warm=None, graphs=0, cached=0),
        )
        for dtype in ("float32", "float16")
        for batch in (1, 2)
    ),
    baselines=tuple(
        replace(
            BASELINE,
            results=tuple(replace(BASELINE.results[0], workload=Workload(prompt, 4, batch)) for prompt in (64, 100)),
        )
        for batch in (1, 2)
    ),
    unavailable=tuple(Unavailable("bfloat16", batch, (64, 100), "no such kernels") for batch in (1, 2)),
)
