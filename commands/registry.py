"""`rasura init`."""

from rasura.commands.frame import command, working_folder
from rasura.commands.output import Result, line


@command(None, "init", mutating=True)
def init(registry_at: str | None, reason: str, actor: str) -> Result:
    """Make a registry in this folder (or where --registry says)."""
    from rasura.registry.store import Registry

    with Registry.create(registry_at or working_folder(), actor=actor, reason=reason) as registry:
        where, origin = str(registry.location), registry.origin
    return Result({"location": where, "log": origin}, lambda: line(f"made a registry at {where}"), changed=True)
