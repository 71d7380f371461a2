"""Golden values: saved beside a reference, checked on a machine that has neither torch nor Transformers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from msport.architectures import load_config
from msport.checkpoint.reader import read_header
from msport.errors import CheckpointError, ConfigError, OutputError, UsageError
from msport.sample import write_sample
from msport.validate import validate_model
from msport.validate.golden import check_new, read_golden
from validate.tampering import change_tensor

# torch and Transformers cannot be imported in this process, as on a machine without them.
WITHOUT_TORCH = """
import importlib.util, json, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "accelerate"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocked())
from msport.validate import validate_model
folder, golden, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
report = validate_model(folder, golden, **options)
assert not {"torch", "transformers"} & set(sys.modules)
print(report.to_json())
"""
PROMPTS = [list(range(3, 43)), list(range(50, 60))]


@pytest.fixture(scope="module")
def golden(converted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("transformers")
    path = tmp_path_factory.mktemp("golden") / "golden.safetensors"
    report = validate_model(converted, level="layers", prompts=PROMPTS, save_reference=path)
    assert report.passed
    assert [file.name for file in path.parent.iterdir()] == [path.name], "nothing half-written is left"
    return path


def _without_torch(folder: Path, golden: Path, **options: Any) -> dict[str, Any]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", WITHOUT_TORCH, str(folder), str(golden), json.dumps(options)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return document


@pytest.mark.reference
def test_a_faithful_model_passes_without_torch(golden: Path, converted: Path) -> None:
    document = _without_torch(converted, golden)
    assert document["passed"]
    assert [prompt["ids"] for prompt in document["prompts"]] == PROMPTS
    assert document["reference"] == str(golden)
    assert document["versions"]["torch"]
    assert document["notes"]
    assert not any("another conversion" in note for note in document["notes"])


@pytest.mark.reference
@pytest.mark.parametrize("stream", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_fault_is_located_without_torch(stream: bool, golden: Path, converted: Path, tmp_path: Path) -> None:
    name = "model.layers.1.self_attn.o_proj.weight"
    folder = change_tensor(converted, tmp_path / "ms", name, lambda values: values * 1.5)
    document = _without_torch(folder, golden, level="layers", stream=stream)
    assert not document["passed"]
    assert document["streamed"] is stream
    assert (document["fault"]["layer"], document["fault"]["operation"]) == ("layers.1", "o_proj")


@pytest.mark.reference
def test_golden_values_say_how_they_were_made(golden: Path, converted: Path, sample: Path) -> None:
    made = read_golden(golden, load_config(converted))
    assert (made.level, made.dtype, made.source_dtype, made.seed) == ("layers", "float32", "bfloat16", 0)
    assert made.source == str(sample.resolve())
    assert {"torch", "transformers", "msport"} <= made.versions.keys()
    assert [list(prompt.ids) for prompt in made.prompts] == PROMPTS
    assert [prompt.number for prompt in made.prompts] == [0, 1]


@pytest.mark.reference
def test_golden_values_of_another_model_are_refused(golden: Path, tmp_path: Path) -> None:
    other = write_sample("gpt-oss", tmp_path / "other", overrides={"num_hidden_layers": 4})
    with pytest.raises(ConfigError, match="num_hidden_layers is 2, not 4"):
        read_golden(golden, load_config(other))


def test_a_file_without_golden_values_is_refused(converted: Path, sample: Path) -> None:
    shard = next(sample.glob("*.safetensors"))
    with pytest.raises(CheckpointError, match="--save-reference"):
        validate_model(converted, shard)


def _drop(prefix: str) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    def change(document: dict[str, Any], tensors: dict[str, Any]) -> None:
        for name in [name for name in tensors if name.startswith(prefix)]:
            del tensors[name]

    return change


def _put(key: str, value: Any) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    return lambda document, tensors: document.update({key: value})


def _prompt(key: str, value: Any) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    return lambda document, tensors: document["prompts"][0].update({key: value})


@pytest.mark.reference
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_drop("logits.1"), "logits.1 is missing"),
        (_drop("noise.bfloat16.1"), r"noise.bfloat16.1 is \(0, 0\)"),
        (_drop("noise.float16.drift"), "noise.float16.drift is None"),
        (_drop("layers.1."), r"layers.1.attention residual.0 is missing"),
        (_prompt("ids", [1, 2, 3]), "has 3 tokens, of which 39 are decoded"),
        (_prompt("ids", [10**9] * 40), "has ids outside the range 0 to 1023"),
        (_prompt("decoded", 2), None),
        (_prompt("text", "你好"), None),
        (_prompt("text", 7), "has a name or text that is not a string"),
        (
            lambda document, tensors: tensors.update({"logits.0": tensors["logits.0"][:, 1:]}),
            r"logits.0 is \(40, 1023\)",
        ),
        (lambda document, tensors: tensors.update({"q_proj.7": tensors["norm.0"]}), "q_proj.7 is"),
        (_put("prompts", []), "there are no prompts"),
        (_put("dtype", "float8"), "float8"),
        (_put("versions", {}), "version of torch"),
        (_put("sizes", {"no_such_size": 1}), "another model"),
    ],
)
def test_golden_values_that_lack_something_are_refused_before_anything_runs(
    change: Callable[[dict[str, Any], dict[str, Any]], None],
    reason: str | None,
    golden: Path,
    converted: Path,
    tmp_path: Path,
) -> None:
    numpy = pytest.importorskip("safetensors.numpy")
    document, tensors = json.loads(read_header(golden).metadata["msport"]), numpy.load_file(golden)
    change(document, tensors)
    numpy.save_file(tensors, tmp_path / "changed.safetensors", {"msport": json.dumps(document)})
    if reason is None:
        read_golden(tmp_path / "changed.safetensors", load_config(converted))
        return
    with pytest.raises((CheckpointError, ConfigError), match=reason):
        read_golden(tmp_path / "changed.safetensors", load_config(converted))


def test_a_golden_file_that_is_absent_is_not_looked_for_elsewhere(converted: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no such file; make them by msport validate --save-reference"):
        validate_model(converted, tmp_path / "absent.safetensors")


@pytest.mark.reference
@pytest.mark.parametrize("options", [{"seed": 3}, {"max_length": 10}, {"reference_dtype": "bfloat16"}])
def test_options_that_golden_values_would_ignore_are_refused(
    options: dict[str, Any], golden: Path, converted: Path
) -> None:
    with pytest.raises(UsageError, match="would have no effect"):
        validate_model(converted, golden, **options)


@pytest.mark.reference
@pytest.mark.parametrize("options", [{"level": "weights"}, {"prompts": [[1]]}, {"save_reference": "x.safetensors"}])
def test_what_golden_values_cannot_answer_is_refused(options: dict[str, Any], converted: Path, golden: Path) -> None:
    with pytest.raises(UsageError, match="golden values"):
        validate_model(converted, golden, **options)


def test_names_that_cannot_take_golden_values_are_refused_beforehand(tmp_path: Path) -> None:
    (tmp_path / "there.safetensors").touch()
    for name, reason in (
        ("a.json", "safetensors file"),
        ("there.safetensors", "exists"),
        ("no/a.safetensors", "folder"),
    ):
        with pytest.raises(OutputError, match=reason):
            check_new(tmp_path / name)
