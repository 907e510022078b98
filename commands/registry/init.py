"""`rasura init`."""

import click

from rasura.commands._shared.asking import DRY
from rasura.commands._shared.command import Order, command
from rasura.commands._shared.nearest import find_nearest, working_folder
from rasura.commands._shared.output import Result, line


@command(None, "init", mutating=True)
@click.option("--upgrade", is_flag=True, help="Bring the nearest registry upwards to this program's schema instead.")
@DRY
def init(*, upgrade: bool, order: Order, dry_run: bool) -> Result:
    """Make a registry in this folder (or where --registry says)."""
    from rasura.registry.registry import Registry

    if upgrade:
        return _upgraded(order, dry_run=dry_run)
    if dry_run:
        place = str(Registry.foresee(order.registry_at or working_folder()))
        return Result({"location": place, "log": None}, lambda: line(f"would make a registry at {place}"))
    with Registry.create(order.registry_at or working_folder(), actor=order.name, reason=order.reason) as registry:
        where, origin = str(registry.location), registry.origin
    return Result({"location": where, "log": origin}, lambda: line(f"made a registry at {where}"), changed=True)


def _upgraded(order: Order, *, dry_run: bool) -> Result:
    from rasura.registry.registry import Registry

    place = order.registry_at or find_nearest()
    before = Registry.upgrade(place, actor=order.name, reason=order.reason, dry_run=dry_run)
    if dry_run and before is not None:
        data = {"location": str(place), "log": None, "from": before}
        return Result(data, lambda: line(f"would upgrade {place} from schema {before}"))
    with Registry.open(place) as registry:
        where, origin = str(registry.location), registry.origin
    said = f"{where} is up to date" if before is None else f"upgraded {where} from schema {before}"
    return Result({"location": where, "log": origin, "from": before}, lambda: line(said), changed=before is not None)
