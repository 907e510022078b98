"""Interrupted at any line of a write: all of the new values or all of the old ones, and always the way back.

A signal's handler runs between two instructions of Python, wherever they are: also between the last write and the line
that would have noted it. So an exception is raised, as Ctrl-C would, at every line and return of the modules that write
and of `contextlib`, one after the other.
"""

import contextlib
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from support.full import FULL
from support.models.tiny import TinySpec, tiny_model
from torch import nn

from rasura.patches._io import byte_ranges
from rasura.patches._io.tensor_bytes import digest_tensors
from rasura.patches.hosts.disk import checkpoint_host, state_folder
from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.patches.hosts.disk.journal import rollback_journal, stage_originals
from rasura.patches.hosts.interface import Host
from rasura.patches.hosts.live import originals, torch_host
from rasura.patches.hosts.live.torch_host import TorchHost
from rasura.patches.types import Digest, ParamName

LIVE = [ParamName(f"unet.{number}.weight") for number in range(3)]
DISK = [ParamName(f"unet.mid_block.attentions.0.transformer_blocks.0.attn2.{key}.weight") for key in ("to_k", "to_v")]
WRITERS = {
    torch_host,
    originals,
    checkpoint_host,
    rollback_journal,
    stage_originals,
    state_folder,
    byte_ranges,
    contextlib,
}
FILES = {str(module.__file__) for module in WRITERS}


class Interrupt:
    """Raises KeyboardInterrupt at the given line or return of our code, in the order in which they run; once."""

    def __init__(self, at: int) -> None:
        self.left, self.place = at, ""

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        file, name = frame.f_code.co_filename, frame.f_code.co_name
        if file not in FILES or name == "<genexpr>":  # whose end, where nobody listens, is an event as well
            return None
        if event in {"line", "return"}:
            self.left -= 1
            if self.left == 0:
                self.place = f"{file}:{frame.f_lineno} in {name} ({event})"
                sys.settrace(None)
                raise KeyboardInterrupt
        return self


def interrupted(work: Callable[[], object], at: int) -> str:
    """Where `work` was interrupted, "" if it ended before."""
    interrupt = Interrupt(at)
    before = sys.gettrace()
    sys.settrace(interrupt)
    try:
        work()
    except KeyboardInterrupt:
        assert interrupt.place
    finally:
        sys.settrace(before)
    return interrupt.place


def run(host: Host, names: list[ParamName], phase: str) -> Callable[[], None]:
    """Bring a pristine host to where a phase begins; what it then does."""
    first = host.read(names)
    if phase != "first":
        host.write({name: tensor * 2 for name, tensor in first.items()})
    if phase == "back":
        return lambda: host.write(first, forget=names)
    return lambda: host.write({name: tensor * 3 for name, tensor in first.items()})


def expected(host: Host, names: list[ParamName], phase: str) -> dict[ParamName, Digest]:
    factor = 1 if phase == "back" else 3
    return digest_tensors({name: tensor * factor for name, tensor in host.originals(names).items()})


def hold_to_promises(host: Host, names: list[ParamName], pristine: dict[ParamName, Digest], place: str) -> None:
    """Whatever the values are, the originals are known, and going back works."""
    assert host.original_digests(names) == pristine, place
    host.write(host.originals(names), forget=names)
    assert host.digests(names) == pristine, place
    assert host.kept() == frozenset(), place


@pytest.mark.parametrize("phase", ["first", "again", "back"])
def test_live(phase: str) -> None:
    for at in count(1):
        modules = nn.ModuleList(nn.Linear(2, 2, bias=False) for _ in LIVE)
        host = TorchHost({"unet": modules}, "interrupted")
        pristine = host.digests(LIVE)
        work = run(host, LIVE, phase)
        old, new = host.digests(LIVE), expected(host, LIVE, phase)
        place = interrupted(work, at)
        assert host.digests(LIVE) in (old, new), place
        hold_to_promises(host, LIVE, pristine, place)
        if not place:
            break
    assert at > 100


# Interrupted between opening a file and entering its block, Python leaves it to the collector, which says so.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(("phase", "begin"), [("first", 1), ("again", 6), ("back", 11)])
def test_on_disk(phase: str, begin: int, tmp_path: Path) -> None:
    """Every fifteenth line, in each phase others, with FULL=1 every fifth in all: a write to disk takes its time."""
    folder = tiny_model(tmp_path / "model", TinySpec(dtype="float16"))
    pristine = CheckpointHost.open(folder).digests(DISK)
    for at in count(1, 5) if FULL else count(begin, 15):
        host = CheckpointHost.open(folder)
        work = run(host, DISK, phase)
        old, new = host.digests(DISK), expected(host, DISK, phase)
        place = interrupted(work, at)
        again = CheckpointHost.open(folder)
        assert again.digests(DISK) in (old, new), place
        hold_to_promises(again, DISK, pristine, place)
        assert not (folder / ".rasura-host").exists(), place
        if not place:
            break
    assert at > 100
