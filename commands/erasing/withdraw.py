"""`rasura withdraw`: a takedown taken back."""

from pathlib import Path
from typing import Any

import click

from rasura.commands._shared.command import Order, command
from rasura.commands._shared.output import Result
from rasura.commands._shared.progress import progress
from rasura.commands.erasing.takedown_steps import (
    check_asking,
    finish,
    motion_options,
    place_options,
    read_place,
    read_stricter,
)
from rasura.patches.obstacles import Obstacles


@command(None, "withdraw", mutating=True)
@click.argument("names", nargs=-1, required=True, metavar="CONCEPT|ID...")
@place_options
@motion_options
def withdraw(
    *,
    names: tuple[str, ...],
    model: Path | None,
    stack: str | None,
    order: Order,
    **options: Any,
) -> Result:
    """Take takedowns back, in one motion; all others stay erased. With the last one, every byte is the base's."""
    from rasura.evaluation.look import check_judge
    from rasura.registry.takedown.ground import sight
    from rasura.registry.takedown.plan_withdrawal import plan_withdrawal

    check_asking(yes=options["yes"], dry_run=options["dry_run"])
    place, obstacles, stricter = read_place(model, stack), Obstacles(), None
    draft = order.draft("takedown.withdraw")
    with order.open(obstacles) as registry:
        with obstacles.noting():
            stricter = read_stricter(options["policy_file"])
        if options["judge"]:
            with obstacles.noting():
                check_judge(options["judge"])
        if obstacles:
            sight(registry, place, obstacles)
            obstacles.refuse()
        with progress() as tell:
            plan = plan_withdrawal(registry, place, names, draft=draft, progress=tell, policy=stricter)
        return finish(registry, plan, draft, **options)
