"""What every test shares: isolation from the machine, Hypothesis profiles, the fixtures of the real servers.

The isolation happens when this file is imported, before any library has read its environment.
"""

import atexit
import gc
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import hypothesis
import pytest

__all__: list[str] = []

_FOREIGN = ("RASURA_", "HF_", "HUGGING_FACE_", "HUGGINGFACE_", "TRANSFORMERS_", "DIFFUSERS_", "GIT_", "PG")


_ROOM = 6 << 30
"""Bytes of memory that must be free; tests take a third of them at most."""


def _lie_in_memory() -> None:
    """Temporary files in memory, where there is room and programs in it may run: each command waits for a disk 20 times.

    That bytes are synced, and in which order, is watched at the calls (`support/crashes/powercut.py`). TMPDIR says
    where else they shall lie, such as where they stay after a test that failed.
    """
    memory = Path("/dev/shm")
    if "TMPDIR" in os.environ or not os.access(memory, os.W_OK) or os.statvfs(memory).f_flag & os.ST_NOEXEC:
        return
    told = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    free = int(told["MemAvailable"].split()[0]) << 10
    if min(free, shutil.disk_usage(memory).free) < _ROOM:
        return
    folder = tempfile.mkdtemp(prefix="rasura-tests-", dir=memory)
    Path(folder).chmod(0o755)  # some tests are other users
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["TMPDIR"] = folder
    tempfile.tempdir = None


def _isolate() -> None:
    """No variable, token, cache or home folder of whoever runs the tests; one thread a process; no network.

    Tests that talk to a Hub have one of their own on loopback; its fixture lifts `HF_HUB_OFFLINE`.
    """
    home = Path(tempfile.mkdtemp(prefix="rasura-home-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    for name in [name for name in os.environ if name.startswith(_FOREIGN)]:
        del os.environ[name]
    os.environ |= {"HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache"), "XDG_CONFIG_HOME": str(home / ".config")}
    os.environ |= {"HF_HOME": str(home / "hf"), "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    # Where a test asks for more threads than there are free cores, they wait asleep: spinning is twice the work.
    os.environ |= {"OMP_WAIT_POLICY": "PASSIVE"}
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "LC_ALL": "C.UTF-8", "TZ": "UTC", "COLUMNS": "120"}


_lie_in_memory()
_isolate()

# Imported by name before any test module, so that pytest rewrites their assertions.
pytest_plugins = ("support.crashes.nurseries", "support.hub_fixtures", "support.registries.postgres")

# A failure in CI must be the same on the next run, and on the machine of whoever mends it.
hypothesis.settings.register_profile("ci", derandomize=True, deadline=None, database=None, print_blob=True)
hypothesis.settings.register_profile("dev", deadline=None)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "dev")


@pytest.fixture(scope="session")
def cache_of_the_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for RASURA_CACHE that all processes of this run share, and no other run."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "rasura-cache"


@pytest.fixture(scope="module")
def encoded_once(cache_of_the_run: Path) -> Iterator[None]:
    """Lists that several tests of this run encode with the same text encoder are encoded by one of them.

    That no bit differs is said by `tests/registry/erase/test_encoded_prompts.py`.
    """
    from rasura.patches._io.settings import get_settings, use

    before = get_settings()
    use(replace(before, cache=str(cache_of_the_run)))
    yield
    use(before)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a CUDA device where there is none. Torch is asked only if somebody needs one.

    Where several processes share the tests, each module is one process's: what its fixtures make is made once. Modules
    with long tests begin: one that came last would keep a process waiting.
    """
    if "PYTEST_XDIST_WORKER" in os.environ:
        long = {item.path for item in items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: item.path not in long)
        for item in items:
            if not item.get_closest_marker("xdist_group"):
                item.add_marker(pytest.mark.xdist_group(item.path.stem.removeprefix("test_")))
    wanting = [item for item in items if item.get_closest_marker("gpu")]
    if wanting and not _cuda():
        for item in wanting:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def pytest_collection_finish() -> None:
    """What was imported until now is never garbage: no collection of a test's own looks through it again."""
    gc.collect()
    gc.freeze()


def _cuda() -> bool:
    import torch

    return torch.cuda.is_available()
