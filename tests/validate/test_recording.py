"""A recording gives back what was written, chunk by chunk."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest

from msport.architectures import load_config
from msport.errors import OutputError
from msport.validate import recording
from msport.validate.prompts import Prompt
from msport.validate.recording import Chunk, Recording, RecordingWriter

PROMPTS = (Prompt("one", tuple(range(5))), Prompt("two", tuple(range(3))))


def test_chunks_come_back_as_whole_prompts(sample: Path, tmp_path: Path) -> None:
    config = load_config(sample)
    generator = np.random.default_rng(0)
    logits = [generator.standard_normal((len(p.ids), config.vocab_size)).astype(np.float32) for p in PROMPTS]
    shape = (config.num_hidden_layers + 1, config.hidden_size)
    states = [generator.standard_normal((shape[0], len(p.ids), shape[1])).astype(np.float32) for p in PROMPTS]
    path = tmp_path / "recording.safetensors"
    with RecordingWriter(path, PROMPTS, config) as writer:
        for number, prompt in reversed(list(enumerate(PROMPTS))):
            for start in range(0, len(prompt.ids), 2):
                piece = slice(start, start + 2)
                writer.add(number, Chunk(start, logits[number][piece], states[number][:, piece]))
    with Recording(path) as read:
        for number, prompt in enumerate(PROMPTS):
            np.testing.assert_array_equal(read.logits(number, 1, len(prompt.ids)), logits[number][1:])
            for layer in range(shape[0]):
                np.testing.assert_array_equal(read.hidden_states(number, layer), states[number][layer])


def test_a_full_disk_is_reported_with_the_remedy(sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, layout: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(recording, "ShardWriter", full)
    with pytest.raises(OutputError, match="TMPDIR"):
        RecordingWriter(tmp_path / "recording.safetensors", PROMPTS, load_config(sample))
