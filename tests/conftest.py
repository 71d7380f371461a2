"""What all tests share: the same cases and the same surroundings on every machine, whatever its user has set.

Property tests draw the same cases each time. ``--hypothesis-profile=random`` draws new ones, as `make test-all` does.
"""

from __future__ import annotations

import gc
import os
import shutil
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from ahead import Pool, waiters_last, work_of
from hypothesis import HealthCheck, settings

# Time decides nothing: a busy machine tries as many cases as an idle one.
settings.register_profile("random", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.register_profile("same", settings.get_profile("random"), derandomize=True, database=None)
settings.load_profile("same")

# What names another hub, another cache or other operators, sends a token or traffic elsewhere, or changes what
# programs print. MSPORT_THREADS, MSPORT_NATIVE and CXX stay: the tests hold for each of their values.
_FORGOTTEN = ("HF_", "HUGGING", "MODELSCOPE_", "TRANSFORMERS_", "MS_", "MSPORT_OPS", "MSPORT_GRAPH", "MSPORT_CACHE")
_FORGOTTEN += (
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NETRC",
    "COLUMNS",
    "FORCE_COLOR",
    "PY_COLORS",
    "GIT_",
    "MAKE",
    "MFLAGS",
)
_CACHES = {"MSPORT_CACHE": "msport", "HF_HOME": "huggingface", "MODELSCOPE_CACHE": "modelscope"}


def _begin_with_empty_caches() -> TemporaryDirectory[str]:
    """No test reads what another version wrote, or writes into the home of its user."""
    folder = TemporaryDirectory(prefix="tests-of-msport-")
    for name in list(os.environ):
        if name.upper().startswith(_FORGOTTEN):
            del os.environ[name]
    os.environ.update({name: str(Path(folder.name) / part) for name, part in _CACHES.items()})
    return folder


def _answer_signals() -> None:
    """A shell starts what runs in its background deaf to Ctrl-C, and the processes that tests start inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _draw_nothing_from_modules() -> None:
    """Newer versions of hypothesis also try numbers and texts that stand in whatever modules are imported by then."""
    with suppress(ImportError):
        from hypothesis.internal.conjecture import providers

        providers.is_local_module_file = lambda file: False


_POOL = pytest.StashKey[Pool]()

_folder = _begin_with_empty_caches()
_answer_signals()
_draw_nothing_from_modules()


def pytest_configure(config: pytest.Config) -> None:
    with suppress(OSError):
        _copy_kernels(_kept_kernels(config), Path(os.environ["MSPORT_CACHE"]))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    waiters_last(items)


def pytest_collection_finish(session: pytest.Session) -> None:
    if any(map(work_of, session.items)) and not session.config.option.collectonly:
        session.stash[_POOL] = Pool(session.items)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _POOL in session.stash:
        session.stash[_POOL].close()


@pytest.fixture
def ahead(request: pytest.FixtureRequest) -> Callable[[], Any]:
    """Waits for the work that the test is marked with, and gives what it returned or raised; see ahead.py."""
    return request.session.stash[_POOL].results[work_of(request.node)].result


@pytest.fixture(scope="module", autouse=True)
def _keep_imports_out_of_garbage_collection() -> None:
    """MindSpore collects garbage before it compiles a graph; among all that the tests import, that takes 0.4 s."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gpt-oss of two layers as the Hub has it: MXFP4 experts, a window of 24. Shared: copy it before changing it."""
    from msport.sample import write_sample

    return write_sample("gpt-oss", tmp_path_factory.mktemp("hub") / "tiny", overrides={"num_hidden_layers": 2})


@pytest.fixture(scope="session")
def converted(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`sample` in bfloat16. Shared: copy it before changing it."""
    from msport.convert import convert_checkpoint

    folder = tmp_path_factory.mktemp("converted") / "tiny-ms"
    convert_checkpoint(sample, folder)
    return folder


def pytest_unconfigure(config: pytest.Config) -> None:
    with suppress(OSError):  # as in a checkout that cannot be written to
        _copy_kernels(Path(os.environ["MSPORT_CACHE"]), _kept_kernels(config))


def _kept_kernels(config: pytest.Config) -> Path:
    """Compiled kernels are kept from one run to the next: the name of each says what it was made of."""
    return config.rootpath / ".pytest_cache" / "d" / "kernels"


def _copy_kernels(source: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for path in source.glob("*.so"):
        if not (target / path.name).exists():
            copy = shutil.copyfile(path, target / f"{path.name}.{os.getpid()}")
            copy.replace(target / path.name)
