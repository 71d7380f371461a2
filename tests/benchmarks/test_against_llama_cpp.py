"""The benchmark beside llama.cpp: its own logic, without llama.cpp. Its figures are not judged."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msport.architectures import load_config
from msport.bench.measure.limits import Limits, Probe
from msport.checkpoint import open_checkpoint
from msport.errors import UsageError
from msport.sample import write_sample

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PLAIN = {"attention_bias": False, "mlp_bias": False, "rope_scaling": None, "tie_word_embeddings": False}


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sample("llama", tmp_path_factory.mktemp("llama") / "hub", overrides=PLAIN)


def rotate(vectors: np.ndarray[Any, Any], pairs: list[tuple[int, int]]) -> np.ndarray[Any, Any]:
    """Each pair of elements turned by an angle of its own."""
    turned = vectors.copy()
    for number, (i, j) in enumerate(pairs):
        cos, sin = np.cos(number + 1.0), np.sin(number + 1.0)
        turned[..., i] = vectors[..., i] * cos - vectors[..., j] * sin
        turned[..., j] = vectors[..., j] * cos + vectors[..., i] * sin
    return turned


def test_neighbours_rotated_by_llama_cpp_are_the_halves_of_a_head() -> None:
    from gguf_llama import interleaved

    heads, head_dim = 3, 8
    generator = np.random.default_rng(0)
    query, key = generator.standard_normal((2, heads * head_dim, 16))
    x = generator.standard_normal(16)
    halves = [(i, i + head_dim // 2) for i in range(head_dim // 2)]
    neighbours = [(i, i + 1) for i in range(0, head_dim, 2)]
    scores = [
        (rotate((q @ x).reshape(heads, head_dim), pairs) * (k @ x).reshape(heads, head_dim)).sum(-1)
        for q, k, pairs in (
            (query, key, halves),
            (interleaved(query, heads), interleaved(key, heads), neighbours),
            (query, key, neighbours),
        )
    ]
    np.testing.assert_allclose(scores[1], scores[0], rtol=1e-12)
    assert np.abs(scores[2] - scores[0]).max() > 0.1


def test_every_tensor_of_a_llama_has_a_name_and_its_shape_in_gguf(llama: Path) -> None:
    from gguf_llama import gguf_tensors

    config = load_config(llama)
    with open_checkpoint(llama) as checkpoint:
        written = dict(gguf_tensors(checkpoint, config))
        assert len(written) == len(checkpoint.tensors) == 3 + 9 * config.num_hidden_layers
        key = checkpoint.view("model.layers.0.self_attn.k_proj.weight")
        down = checkpoint.view("model.layers.1.mlp.down_proj.weight")
        np.testing.assert_array_equal(written["blk.1.ffn_down.weight"], down)
        # The second row of a head is the first of its second half.
        np.testing.assert_array_equal(written["blk.0.attn_k.weight"][1], key[config.head_dim // 2])
    assert {values.dtype for name, values in written.items() if "norm" in name} == {np.dtype(np.float32)}
    assert {values.dtype for name, values in written.items() if "norm" not in name} == {np.dtype(np.uint16)}


def test_a_bias_has_no_place_in_the_gguf_file() -> None:
    from gguf_llama import gguf_name

    with pytest.raises(ValueError, match=r"self_attn\.q_proj\.bias: no tensor of a plain Llama"):
        gguf_name("model.layers.0.self_attn.q_proj.bias")


def test_the_embedding_counts_only_if_it_is_the_head(llama: Path, tmp_path: Path) -> None:
    from against_llama_cpp import weights_nbytes

    tied = write_sample("llama", tmp_path / "tied", overrides={**PLAIN, "tie_word_embeddings": True})
    assert weights_nbytes(tied) == weights_nbytes(llama)
    with open_checkpoint(llama) as checkpoint:
        everything = sum(info.nbytes for info in checkpoint.tensors.values())
        embedding = checkpoint.tensors["model.embed_tokens.weight"].nbytes
    assert weights_nbytes(llama) == everything - embedding


def test_a_token_reads_the_weights_as_each_side_holds_them(llama: Path, tmp_path: Path) -> None:
    from against_llama_cpp import ENCODINGS, Model, Plan, read_by

    model, plan = Model("llama", llama, tmp_path), Plan(None, True, (0,), (), 1, 1)
    plain, cache_itemsize = read_by("msport", model, ENCODINGS["bfloat16"], plan)
    assert (plain, cache_itemsize) == (weights := read_by("Transformers", model, ENCODINGS["bfloat16"], plan)[0], 4)
    assert read_by("msport", model, ENCODINGS["float32"], plan) == (2 * weights, 4)
    assert read_by("Transformers", model, ENCODINGS["float32"], plan) == (2 * weights, 4)


def test_sides_take_turns_and_one_that_fails_is_asked_once() -> None:
    from against_llama_cpp import take_turns

    calls: list[str] = []

    def side(name: str, problem: str = "") -> Callable[[], Any]:
        def run() -> str:
            calls.append(name)
            if problem:
                raise UsageError(problem)
            return name

        return run

    found = take_turns({"a": side("a"), "b": side("b", "dtype is 'int3'"), "c": side("c")}, 3)
    assert calls == ["a", "b", "c", "a", "c", "a", "c"]
    assert found == {"a": ["a"] * 3, "b": "dtype is 'int3'", "c": ["c"] * 3}


def test_the_divergence_is_that_of_the_definition(tmp_path: Path) -> None:
    from quantization_quality import compare

    generator = np.random.default_rng(0)
    reference, other = generator.standard_normal((2, 50, 300)).astype(np.float32) * 3
    np.save(tmp_path / "reference.npy", reference)
    np.save(tmp_path / "other.npy", other)
    p, q = (
        np.exp(each) / np.exp(each).sum(-1, keepdims=True) for each in (reference.astype(float), other.astype(float))
    )
    found = compare(tmp_path / "reference.npy", tmp_path / "other.npy")
    assert found["tokens"] == 50
    assert found["mean_kl"] == pytest.approx((p * np.log(p / q)).sum(-1).mean(), rel=1e-9)
    assert found["same_top1"] == (reference.argmax(-1) == other.argmax(-1)).mean()


def test_the_table_has_shares_of_the_limits_ratios_and_problems() -> None:
    from peer_rows import Row, Time, heading, table

    limits = Limits((Probe("read", 40e9, 39e9, 5),), (Probe("multiply", 200e9, 190e9, 5),))
    sizes: dict[str, Any] = {"token_nbytes": 200_000_000, "flops": {128: 10**10}, "peak_resident": 10**9}
    rows = [
        Row("msport", "int4", decode=Time(10.0, 8.0), prefill={128: Time(100.0, 80.0)}, **sizes),
        Row("llama.cpp", "Q4_0", decode=Time(20.0, 4.0), prefill={128: Time(50.0, 40.0)}, **sizes),
        Row("Transformers", "bfloat16", problem="ran out of memory"),
    ]
    ours, theirs, failed, ratios = table(rows, limits)
    assert ours.split()[2:] == ["10.00", "8.00", "50%", "200", "MB", "100.0", "80.0", "50%", "1.00", "GB"]
    assert theirs.split()[4] == "25%"
    assert failed.endswith("ran out of memory")
    assert ratios.strip() == "times as fast as llama.cpp Q4_0: decode 2.00 (best 0.50), prefill 128 0.50 (best 0.50)"
    assert len(next(heading([128]))) == len(ours)


def test_the_report_and_its_document_hold_every_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from against_llama_cpp import Model, as_document, report
    from peer_rows import Row, Time

    limits = Limits((Probe("read", 40e9, 39e9, 5),), (Probe("multiply", 200e9, 190e9, 5),))
    prefill = {128: Time(100.0, 80.0), 512: Time(400.0, 390.0)}
    sizes: dict[str, Any] = {"token_nbytes": 10**8, "flops": {128: 10**10, 512: 10**11}, "peak_resident": 10**9}
    plain = [Row(side, "bfloat16", "", Time(10.0, 8.0), prefill, **sizes) for side in ("msport", "Transformers")]
    packed = [Row("msport", "int4", "dtype is 'int4'"), Row("llama.cpp", "Q4_0", "", Time(5.0, 4.0), prefill, **sizes)]
    costs = [
        {"side": "msport", "kind": "int4", "tokens": 9, "problem": "dtype is 'int4'"},
        {"side": "llama.cpp", "kind": "Q4_0", "tokens": 9, "mean_kl": 0.25, "same_top1": 0.75},
    ]
    report(Model("smollm2", tmp_path, tmp_path), [plain, packed], costs, limits)
    text = capsys.readouterr().out
    document = json.loads(json.dumps(as_document(Model("smollm2", tmp_path, tmp_path), [plain, packed], costs, limits)))
    assert [row["kind"] for row in document["rows"]] == ["bfloat16", "bfloat16", "int4", "Q4_0"]
    assert list(document["times_as_fast_as"]) == ["Transformers bfloat16"]
    assert document["times_as_fast_as"]["Transformers bfloat16"]["prefill 512"] == {"median": 1.0, "best": 1.0}
    assert document["quality"] == costs
    assert text.count("dtype is 'int4'") == 2
    assert "2.500e-01   75.0% same top-1" in text


def test_a_text_that_is_too_short_is_refused(llama: Path, tmp_path: Path) -> None:
    from quantization_quality import text_ids

    text = tmp_path / "text.md"
    text.write_text("one two three\n", encoding="utf-8")
    ids = text_ids(llama, 2, text)
    assert len(ids) == 2
    with pytest.raises(UsageError, match=r"text\.md: has \d+ tokens, not 2000"):
        text_ids(llama, 2000, text)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / "against_llama_cpp.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=3600)


def test_a_python_without_llama_cpp_ends_in_one_line() -> None:
    child = run("--llama-python", sys.executable)
    assert child.returncode == 2
    assert child.stderr.splitlines()[-1].startswith("against_llama_cpp.py: error: ")
    assert "No module named 'llama_cpp'" in child.stderr
    assert "pip install llama-cpp-python" in child.stderr


@pytest.mark.slow
@pytest.mark.reference
def test_msport_is_measured_without_llama_cpp(tmp_path: Path) -> None:
    options = ("--models", "llama", "--encodings", "bfloat16", "--rounds", "1", "--repeats", "1", "--new-tokens", "2")
    child = run(*options, "--folder", str(tmp_path))
    assert child.returncode == 0, child.stderr
    assert "without llama.cpp; to get it: python3 -m venv" in child.stdout
    document = json.loads(child.stdout.splitlines()[-1])
    rows = document["models"][0]["rows"]
    assert [(row["side"], row["kind"]) for row in rows] == [("msport", "bfloat16"), ("Transformers", "bfloat16")]
    assert all(row["decode"]["best"] > 0 for row in rows)
    assert not list(tmp_path.iterdir())
