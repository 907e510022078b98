"""Taking everything out moves bytes: what is there afterwards, and what was imported for it."""

import subprocess
import sys
from pathlib import Path

import torch
from support.commandline import rasura
from support.registries.workshop import ALICE, Workshop, workshop
from support.values.factories import same_bits

from rasura.patches.algebra.stack import Stack
from rasura.registry.apply import operations
from rasura.registry.apply.hosts.cached_host import Glance
from rasura.registry.apply.hosts.host_state import present_set
from rasura.registry.apply.prepare import prepare_motion
from rasura.registry.apply.take_all_out import prepare_pristine

__all__ = ["workshop"]

HEAVY = {"torch", "numpy", "transformers", "diffusers", "tokenizers", "safetensors"}


def imported_by(*words: str | Path, cwd: Path) -> tuple[int, set[str]]:
    """How a command ends in a process of its own, and what it imported."""
    script = (
        "import sys\nsys.argv = ['rasura', *sys.argv[1:]]\n"
        "try:\n    from rasura.cli import main\n    main()\n"
        "finally:\n    print(*sorted({m.partition('.')[0] for m in sys.modules}), file=sys.stderr)\n"
    )
    command = [sys.executable, "-c", script, *map(str, words)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    return done.returncode, set(done.stderr.splitlines()[-1].split())


def test_a_revert_on_disk_imports_nothing_heavy_and_restores_every_byte(workshop: Workshop) -> None:
    pristine = {path.name: path.read_bytes() for path in workshop.model.rglob("*.safetensors")}
    assert rasura("patch", "apply", workshop.dog, "--model", workshop.model, cwd=workshop.folder).code == 0
    assert {path.name: path.read_bytes() for path in workshop.model.rglob("*.safetensors")} != pristine
    code, modules = imported_by("patch", "revert", "--all", "--yes", "--model", workshop.model, cwd=workshop.folder)
    assert (code, modules & HEAVY) == (0, set())
    assert {path.name: path.read_bytes() for path in workshop.model.rglob("*.safetensors")} == pristine
    code, modules = imported_by("patch", "status", "--model", workshop.model, cwd=workshop.folder)
    assert (code, modules & HEAVY) == (0, set())


def test_it_is_what_composing_the_empty_set_gives(workshop: Workshop) -> None:
    with workshop.open() as registry:
        operations.apply(registry, workshop.host(), [workshop.dog, workshop.van_gogh], ALICE)
        host = workshop.host()
        seen = Glance(host)
        present = present_set(registry, host, seen)
        light = prepare_pristine(registry, seen, present)
        heavy = prepare_motion(registry, seen, present, Stack(), registry.policy())
    assert light.record.state == heavy.record.state
    assert (light.before, light.after, light.forget) == (heavy.before, heavy.after, heavy.forget)
    assert (light.parameters, light.verdict, light.keys) == (heavy.parameters, heavy.verdict, heavy.keys)
    originals = host.originals(light.tensors)
    assert originals.keys() == heavy.tensors.keys()
    for name, value in host.untouched(light.tensors).items():
        assert bytes(value.data) == originals[name].view(torch.uint8).numpy().tobytes()
        assert same_bits(originals[name], host.lent([name])[name])


def test_putting_in_taking_out_and_checking_on_disk_import_no_torch(workshop: Workshop) -> None:
    model = ("--model", workshop.model)
    pristine = {path.name: path.read_bytes() for path in workshop.model.rglob("*.safetensors")}
    for words in (
        ("stack", "create", "both", workshop.dog, workshop.van_gogh),
        ("patch", "check", workshop.dog, workshop.van_gogh),
        ("patch", "apply", workshop.dog, *model),
        ("patch", "apply", workshop.van_gogh, *model),
        ("patch", "revert", workshop.dog, "--yes", *model),
        ("patch", "switch", "both", "--yes", *model),
    ):
        code, modules = imported_by(*words, cwd=workshop.folder)
        assert (words[:2], code, modules & (HEAVY - {"numpy"})) == (words[:2], 0, set())
    with workshop.open() as registry:
        operations.revert(registry, workshop.host(), [workshop.dog, workshop.van_gogh], ALICE)
    assert {path.name: path.read_bytes() for path in workshop.model.rglob("*.safetensors")} == pristine
