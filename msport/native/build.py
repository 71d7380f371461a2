"""Compiles the C++ sources of this folder once per machine and source text, and keeps the libraries for later runs.

Because sources are shipped instead of binaries, one wheel serves x86 and the Arm hosts of Ascend machines, and the
compiler can use the vector unit of the machine. ``mxfp4`` and ``quantise`` are one file each, ``operators`` is all
others. So a conversion does not wait for operators that it does not call.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
import threading
from functools import cache
from pathlib import Path
from typing import Literal

from msport.cache_folder import cache_folder

_FOLDER = Path(__file__).parent
_FLAGS = ("-std=c++17", "-O3", "-march=native", "-shared", "-fPIC", "-pthread")
_TIMEOUT_SECONDS = 600  # twelve seconds on an idle machine
_LONGEST_OUTPUT = 200
# Source files that become a separate library.
_ALONE = {"mxfp4", "quantise"}
# A product and a sum stay apart, as in NumPy, whose bits these libraries have to give.
_FURTHER_FLAGS = {"quantise": ("-ffp-contract=off",)}
_SLOWER = {
    "operators": "the slower portable operators are used",
    "mxfp4": "MXFP4 is decoded by NumPy, several times slower",
    "quantise": "weights are quantised by NumPy, many times slower",
}

_log = logging.getLogger(__name__)
_lock = threading.Lock()


def library(name: Literal["operators", "mxfp4", "quantise"] = "operators") -> Path | None:
    """The compiled library, or None (with one warning) if there is no working compiler.

    ``MSPORT_NATIVE=0`` disables the libraries, ``CXX`` is the compiler's command, ``MSPORT_CACHE`` is the folder of the
    libraries (default ``~/.cache/msport``), ``MSPORT_THREADS`` bounds the threads of an operator, and
    ``MSPORT_AWAKE_US`` is how many microseconds such a thread stays awake without work. Several threads and processes
    may call this at the same time.
    """
    with _lock:
        return _find(name)


@cache
def _find(name: str) -> Path | None:
    if os.environ.get("MSPORT_NATIVE") == "0":
        return None
    slower = _SLOWER[name]
    try:
        compiler = _compiler()
        if compiler is None:
            _log.warning("no C++ compiler found: %s; install g++ to speed up the CPU", slower)
            return None
        sources = _sources(name)
        flags = (*_FLAGS, *_FURTHER_FLAGS.get(name, ()))
        target = cache_folder() / f"{name}-{_fingerprint(compiler, flags, sources)}.so"
        if not target.exists():
            _compile([*compiler, *flags], sources, target)
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: a user without a home; ValueError: CXX
        _log.warning("the C++ kernels cannot be compiled: %s; %s", error, slower)
        return None
    return target


def _compiler() -> list[str] | None:
    """The command and arguments in ``CXX``, as in make; else the first compiler found."""
    if stated := os.environ.get("CXX", "").strip():
        try:
            return shlex.split(stated)
        except ValueError as error:
            raise ValueError(f"CXX={stated}: {error}") from None
    found = shutil.which("g++") or shutil.which("clang++") or shutil.which("c++")
    return None if found is None else [found]


def _sources(name: str) -> list[Path]:
    if name in _ALONE:
        return [_FOLDER / f"{name}.cpp"]
    return sorted(path for path in _FOLDER.glob("*.cpp") if path.stem not in _ALONE)


def _fingerprint(compiler: list[str], flags: tuple[str, ...], sources: list[Path]) -> str:
    """A hash of everything that a compiled library depends on: sources, flags, compiler, processor."""
    digest = hashlib.sha256()
    for path in [*sources, *sorted(_FOLDER.glob("*.h"))]:
        digest.update(path.read_bytes())
    digest.update("\0".join((*compiler, *flags, platform.machine(), _processor())).encode())
    return digest.hexdigest()[:16]


def _processor() -> str:
    """The processor's feature flags. They matter because different machines may share a home folder."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def _compile(command: list[str], sources: list[Path], target: Path) -> None:
    """Compiles `sources` to `target` with `command`. Raises OSError or RuntimeError that names what failed: the folder
    or the command.
    """
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(suffix=".so", dir=target.parent)
    os.close(handle)
    try:
        _run([*command, *map(str, sources), "-o", temporary])
        # Two processes may compile at the same time: the last one wins, and both files are complete.
        os.replace(temporary, target)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT_SECONDS
        )
    except OSError as error:
        raise RuntimeError(f"{command[0]} cannot be run ({error.strerror})") from None
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"{command[0]} did not end within {_TIMEOUT_SECONDS} s") from None
    if done.returncode != 0:
        said = " ".join((done.stderr or done.stdout).split())[:_LONGEST_OUTPUT]
        raise RuntimeError(f"{command[0]} failed with exit code {done.returncode}: {said or 'it said nothing'}")
