"""`rasura init`."""

import click

from rasura.commands._shared.command import command
from rasura.commands._shared.nearest import find_nearest, working_folder
from rasura.commands._shared.output import Result, line


@command(None, "init", mutating=True)
@click.option("--upgrade", is_flag=True, help="Bring the nearest registry upwards to this program's schema instead.")
def init(*, upgrade: bool, registry_at: str | None, reason: str, actor: str) -> Result:
    """Make a registry in this folder (or where --registry says)."""
    from rasura.registry.registry import Registry

    if upgrade:
        return _upgraded(registry_at, reason, actor)
    with Registry.create(registry_at or working_folder(), actor=actor, reason=reason) as registry:
        where, origin = str(registry.location), registry.origin
    return Result({"location": where, "log": origin}, lambda: line(f"made a registry at {where}"), changed=True)


def _upgraded(registry_at: str | None, reason: str, actor: str) -> Result:
    from rasura.registry.registry import Registry

    place = registry_at or find_nearest()
    before = Registry.upgrade(place, actor=actor, reason=reason)
    with Registry.open(place) as registry:
        where, origin = str(registry.location), registry.origin
    said = f"{where} is up to date" if before is None else f"upgraded {where} from schema {before}"
    return Result({"location": where, "log": origin, "from": before}, lambda: line(said), changed=before is not None)
