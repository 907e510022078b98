"""What it costs that rows are held to the log: an apply of one patch with and without it.

`python benchmarks/registry/enforcement.py [MODEL] [--patches 1 12000] [--repeats 15]` prints a Markdown table.

The model is copied, a registry made beside it, one concept erased, and rows and entries of as many other patches added,
as pulling them would. Then the patch is applied in pairs, the two ways taking turns in going first: within one process,
with a registry that was just opened, and as a command in a process of its own. *With* is what everybody gets. *Without*
reads the same tables without the index of what the log tells (`LogWriter.snapshot` for `LogWriter.reading`), which no
setting can bring about. Times are medians; *more* is the median over the pairs of with divided by without, less one,
and beside it the quartiles. *CPU* is processor time, user and system, which other work on the machine hardly changes;
*wall* is what passed. The revert between two applies is not timed, and always checked.
"""

import argparse
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Final

from rasura.patches.erasers.request import EraseRequest
from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.patches.prompts.concept_prompts import Target
from rasura.patches.prompts.retain_set import RetainSet
from rasura.patches.types import PatchId
from rasura.registry._resources.patches.patches import NewPatch
from rasura.registry._storage.digests import sha256
from rasura.registry._storage.records.records import Draft
from rasura.registry.apply import operations
from rasura.registry.apply.operations import Actor
from rasura.registry.erase.base_models import add_base
from rasura.registry.erase.erase import erase
from rasura.registry.log.writer import LogWriter
from rasura.registry.registry import Registry
from rasura.registry.trust.keys.key_files import make_key

ACTOR: Final = Actor("bench", "")
MODEL: Final = Path(__file__).parents[2] / "examples" / "reference_model" / "pipeline"
_BATCH: Final = 1000
_COMMAND: Final = """
import sys
from rasura.registry.log.writer import LogWriter
if sys.argv.pop(1) == "without":
    LogWriter.reading = LogWriter.snapshot
    LogWriter._told = lambda self, session: None
from rasura.cli import main
main()
"""


@contextmanager
def unchecked() -> Iterator[None]:
    """Rows are read as they are."""
    reading, told = LogWriter.reading, LogWriter._told  # noqa: SLF001  # a measurement takes apart what it measures
    LogWriter.reading = LogWriter.snapshot  # type: ignore[method-assign, assignment]
    LogWriter._told = lambda _self, _session: None  # type: ignore[method-assign, assignment]  # noqa: SLF001
    try:
        yield
    finally:
        LogWriter.reading, LogWriter._told = reading, told  # type: ignore[method-assign]  # noqa: SLF001


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds."""

    cpu: float
    wall: float


def spent_by(work: Callable[[], object]) -> Spent:
    """What it takes, in this process and in those that it waits for."""
    before, start = _used(), time.perf_counter()
    work()
    return Spent(_used() - before, time.perf_counter() - start)


def _used() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def silent(_stage: str, _done: int, _total: int) -> None:
    """Say nothing."""


def build(folder: Path, model: Path, concept: str, anchor: str) -> PatchId:
    """A registry in `folder` with one patch of the model in it."""

    def draft(action: str) -> Draft:
        return Draft(ACTOR.name, "", action, "success")

    with Registry.create(folder, actor=ACTOR.name) as registry:
        make_key(registry, "bench", draft("key.add"))
        add_base(registry, model, "base", draft("base.add"), silent)
        request = EraseRequest((Target(concept, anchor),), retain=RetainSet("bench", ("painting", "a", "the")))
        (made,) = erase(registry, "base", request, key=None, protect=(), draft=draft("patch.erase"), progress=silent)
    return made.patch.patch_id


def crowd(folder: Path, patch_id: PatchId, count: int) -> None:
    """Add rows and entries of other patches, with the files of the first, until there are `count`."""
    with Registry.open(folder) as registry:
        record, entry = registry.patch(patch_id), Draft(ACTOR.name, "", "patch.pull", "success")
        files = {name: registry.blobs.read(digest) for name, digest in record.files.items()}
        for start in range(1, count, _BATCH):
            numbers = range(start, min(start + _BATCH, count))
            others = (
                replace(record, patch_id=PatchId(sha256(b"%d" % n)), concepts=(f"thing {n}",), source=f"bench {n}")
                for n in numbers
            )
            registry.add_patches([NewPatch(other, files, entry) for other in others])


def once(registry: Registry, model: Path, patch: PatchId) -> Spent:
    """To apply."""
    return spent_by(lambda: operations.apply(registry, CheckpointHost.open(model), [patch], ACTOR))


def opened(folder: Path, model: Path, patch: PatchId) -> Spent:
    """The same with a registry that was just opened."""

    def work() -> None:
        with Registry.open(folder) as registry:
            operations.apply(registry, CheckpointHost.open(model), [patch], ACTOR)

    return spent_by(work)


def typed(folder: Path, model: Path, patch: PatchId, *, checked: bool) -> Spent:
    """The same as a command in a process of its own."""
    words = [sys.executable, "-c", _COMMAND, "with" if checked else "without", "patch", "apply", patch]
    words += ["--model", str(model), "--registry", str(folder)]
    return spent_by(lambda: subprocess.run(words, check=True, capture_output=True))


Pairs = list[tuple[Spent, Spent]]
"""With and without, one beside the other in time."""


def paired(run: Callable[[], Spent], bare: Callable[[], Spent], undo: Callable[[], object], repeats: int) -> Pairs:
    """The two ways, taking turns in going first."""
    found: Pairs = []
    for turn in range(-1, repeats):
        pair: dict[bool, Spent] = {}
        for checked in (True, False) if turn % 2 else (False, True):
            pair[checked] = run() if checked else bare()
            undo()
        if turn >= 0:
            found.append((pair[True], pair[False]))
    return found


def describe(pairs: Pairs) -> str:
    """The cells of one row."""
    cells = []
    for of in (attrgetter("cpu"), attrgetter("wall")):
        checked, bare = (statistics.median(of(pair[side]) for pair in pairs) for side in (0, 1))
        low, middle, high = statistics.quantiles([of(one) / of(other) for one, other in pairs], n=4)
        quartiles = f"{low - 1:+.1%} to {high - 1:+.1%}"
        cells += [f"{checked * 1e3:.0f} ms", f"{bare * 1e3:.0f} ms", f"{middle - 1:+.1%}", quartiles]
    return " | ".join(cells)


def without(run: Callable[[], Spent]) -> Callable[[], Spent]:
    """The same, unchecked."""

    def bare() -> Spent:
        with unchecked():
            return run()

    return bare


def measure(folder: Path, model: Path, patch: PatchId, repeats: int) -> dict[str, Pairs]:
    """The three rows of one registry."""

    def undo() -> None:
        with Registry.open(folder) as again:
            operations.revert(again, CheckpointHost.open(model), None, ACTOR)

    found = {}
    with Registry.open(folder) as registry:

        def warm() -> Spent:
            return once(registry, model, patch)

        def revert() -> None:
            operations.revert(registry, CheckpointHost.open(model), None, ACTOR)

        found["in a process that goes on"] = paired(warm, without(warm), revert, repeats)

    def cold() -> Spent:
        return opened(folder, model, patch)

    found["with a registry just opened"] = paired(cold, without(cold), undo, repeats)
    found["as a command"] = paired(
        lambda: typed(folder, model, patch, checked=True),
        lambda: typed(folder, model, patch, checked=False),
        undo,
        max(3, repeats // 2),
    )
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?", default=MODEL)
    parser.add_argument("--concept", default="dog")
    parser.add_argument("--anchor", default="cat")
    parser.add_argument("--patches", type=int, nargs="+", default=[1, 12_000])
    parser.add_argument("--repeats", type=int, default=15)
    given = parser.parse_args()
    print(f"`python benchmarks/registry/enforcement.py --repeats {given.repeats}`, {platform.machine()}, ", end="")
    print(f"Python {platform.python_version()}\n")
    print(
        "| Apply of one patch | patches | entries | CPU with | without | more | quartiles | wall with | without | ",
        end="",
    )
    print("more | quartiles |\n|---|---:|---:|---:|---:|---:|---|---:|---:|---:|---|")
    with tempfile.TemporaryDirectory() as name:
        folder, model = Path(name), Path(name) / "model"
        shutil.copytree(given.model, model)
        patch = build(folder, model, given.concept, given.anchor)
        for count in given.patches:
            crowd(folder, patch, count)
            for what, pairs in measure(folder, model, patch, given.repeats).items():
                with Registry.open(folder) as registry:
                    size = registry.head().size
                print(f"| {what} | {count} | {size} | {describe(pairs)} |", flush=True)


if __name__ == "__main__":
    main()
