"""`rasura patch export`: patches as files for other programs."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from rasura.commands._shared.command import command, open_registry
from rasura.commands._shared.documents import write_document
from rasura.commands._shared.output import Result, line
from rasura.commands._shared.retyping import retyping_strengths

if TYPE_CHECKING:
    from rasura.patches.algebra.stack import Stack
    from rasura.patches.format.spellings.lora_names import LoraStyle
    from rasura.registry.registry import Registry

_AS_SIGNED = (
    "format peft is each patch as it was signed: name patches, without strengths; kohya and native have strengths and "
    "stacks"
)


@command(None, "export")
@click.argument("ids", nargs=-1, metavar="ID...")
@click.option("--stack", metavar="NAME", help="The patches and strengths of a stack or lock file, instead of IDs.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    metavar="PATH",
    help="New folder; kohya, native: file.",
)
@click.option(
    "--format",
    "spelling",
    type=click.Choice(["peft", "kohya", "native"]),
    default="peft",
    show_default=True,
    help="peft: signed folder. kohya, native: unsigned file.",
)
@click.option("--each", is_flag=True, help="A folder or file each, in the new folder PATH; peft: so for several.")
@click.option("--strength", metavar="S", help="Without peft: multiple of 1/16 from -4 to 4; or ID=S [default: 1].")
def export(
    *,
    ids: tuple[str, ...],
    stack: str | None,
    output: Path,
    spelling: Literal["peft", "kohya", "native"],
    strength: str | None,
    registry_at: str | None,
    each: bool,
) -> Result:
    """Write patches for other programs.

    As peft: a patch as a folder that `model_signing verify` accepts and diffusers' load_lora_weights reads, into
    pipelines that have it: not PixArt's nor Cosmos', and of Wan 2.2 into one denoiser alone; several as folders in a
    new one. As kohya (lora_unet_…) or native (diffusion_model.…, of transformers alone): one .safetensors file for
    ComfyUI, A1111 and Forge, of one patch or several, or with --each a file each, of Wan 2.2 a folder of two; these
    formats carry no signature. A transformer's layers are called there as its authors call them.
    """
    if bool(ids) == bool(stack):
        raise click.UsageError("name the patches to export, or --stack NAME")
    if stack and strength:
        raise click.UsageError("a stack has strengths of its own")
    if spelling == "peft":
        if stack or strength or any("=" in i for i in ids):
            raise click.UsageError(_AS_SIGNED)
        return _folders(ids, output, registry_at) if each or len(ids) > 1 else _folder(ids[0], output, registry_at)
    named = [f"{i}={strength}" if strength and "=" not in i else i for i in ids]
    return (_files if each else _file)(named, stack, output, registry_at, style=spelling)


def _folder(patch_ref: str, output: Path, registry_at: str | None) -> Result:
    from rasura.patches.format.patch import write_folder

    with open_registry(registry_at) as registry:
        patch_id = registry.resolve_patch(patch_ref)
        write_folder(output, registry.patch_files(patch_id))
    data = {"id": patch_id, "folder": str(output), "signed": True}
    return Result(data, lambda: line(f"wrote {output}"), changed=True)


def _folders(ids: Sequence[str], output: Path, registry_at: str | None) -> Result:
    from rasura.patches.format.patch import write_folder
    from rasura.registry.stacks.export import list_folders, name_patch

    with open_registry(registry_at) as registry:
        found = list(dict.fromkeys(registry.resolve_patch(i) for i in ids))
        write_folder(output, list_folders(registry, found))
        places = {patch_id: str(output / name_patch(registry, patch_id)) for patch_id in found}
    said = "\n".join(f"wrote {place}" for place in places.values())
    return Result({"patches": places, "folder": str(output), "signed": True}, lambda: line(said), changed=True)


def _files(
    ids: Sequence[str], stack: str | None, output: Path, registry_at: str | None, *, style: "LoraStyle"
) -> Result:
    from rasura.patches.format.patch import write_folder
    from rasura.patches.format.spellings.lora_file import UNSIGNED
    from rasura.registry.stacks.export import list_files

    with open_registry(registry_at) as registry:
        wanted = _wanted(registry, ids, stack)
        files = list_files(registry, wanted, style)
        write_folder(output, {name: data for own in files.values() for name, data in own.items()})
    # Of two denoisers, the folder that has both files.
    places = {
        patch_id: str(output / (name if len(own) == 1 else name.partition("/")[0]))
        for patch_id, own in files.items()
        for name in list(own)[:1]
    }
    data = {
        "patches": {patch_id: str(strength) for patch_id, strength in wanted.items()},
        "files": places,
        "signed": False,
    }
    said = "\n".join([*(f"wrote {place}" for place in places.values()), f"signed: {UNSIGNED}"])
    return Result(data, lambda: line(said), changed=True)


def _file(
    ids: Sequence[str], stack: str | None, output: Path, registry_at: str | None, *, style: "LoraStyle"
) -> Result:
    import hashlib

    from rasura.patches.format.spellings.lora_file import UNSIGNED
    from rasura.registry.stacks.export import export_lora

    with open_registry(registry_at) as registry:
        wanted = _wanted(registry, ids, stack)
        made = export_lora(registry, wanted, style)
        write_document(output, made.data)
    data = {
        "patches": {patch_id: str(strength) for patch_id, strength in wanted.items()},
        "file": str(output),
        "sha256": hashlib.sha256(made.data).hexdigest(),
        "modules": made.modules,
        "rank": made.rank,
        "signed": False,
    }
    patches = "1 patch" if len(wanted) == 1 else f"{len(wanted)} patches"
    modules = "1 module" if made.modules == 1 else f"{made.modules} modules"
    said = f"wrote {output}: {patches}, {modules} of rank {made.rank}\nsigned: {UNSIGNED}"
    return Result(data, lambda: line(said), changed=True)


def _wanted(registry: "Registry", ids: Sequence[str], stack: str | None) -> "Stack":
    from rasura.registry.stacks.edit import members_of
    from rasura.registry.stacks.stack_ref import goal_of

    with retyping_strengths("ids", ids):
        return members_of(registry, ids) if stack is None else goal_of(registry, stack).patches
