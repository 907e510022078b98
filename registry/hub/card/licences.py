"""Licences as the Hub's front matter names them, and which one a card carries.

The Hub takes one of its own short names; anything else is `license: other` with `license_name`
(huggingface.co/docs/hub/repositories-licenses).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rasura.patches.errors import InputError

__all__ = ["KEYS", "Licence", "choose_licence", "parse_licence"]

KEYS: Final = ("license", "license_name", "license_link")
"""What the front matter says of a licence."""
_OTHER: Final = "other"
_CREATIVE: Final = tuple(
    f"cc-{kind}-{version}"
    for kind, versions in {
        "by": "2.0 2.5 3.0 4.0",
        "by-sa": "3.0 4.0",
        "by-nc": "2.0 3.0 4.0",
        "by-nd": "4.0",
        "by-nc-nd": "3.0 4.0",
        "by-nc-sa": "2.0 3.0 4.0",
    }.items()
    for version in versions.split()
)
_NAMES: Final = """
apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m
openrail++ afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0
cdla-sharing-1.0 cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2
agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc intel-research lppl-1.3c ms-pl apple-ascl apple-amlr
mpl-2.0 odc-by odbl osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr deepfloyd-if-license llama2 llama3
llama3.1 llama3.2 llama3.3 gemma unknown
"""
_KNOWN: Final = frozenset(_NAMES.split()) | frozenset(_CREATIVE)
_LONGEST: Final = 100
_SLUG: Final = re.compile(r"[^a-z0-9.+-]+")


@dataclass(frozen=True, slots=True)
class Licence:
    """What a card says of its licence.

    Attributes:
        front: `license`, and what goes with it; empty where nobody has said one.
        notes: what a person should know, one sentence each.
    """

    front: Mapping[str, str]
    notes: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        """In words; "" where nobody has said one."""
        return self.front.get("license_name") or self.front.get("license", "")


def parse_licence(name: str) -> dict[str, str]:
    """The front matter of a licence that a person named: the Hub's short name, or `other` with the name given.

    Raises:
        InputError: empty, or no name but a text.
    """
    slug = _SLUG.sub("-", name.strip().lower()).strip("-")
    if not slug or len(name) > _LONGEST or not name.isprintable():
        raise InputError(
            f"expected a licence's name such as apache-2.0, got {name[:_LONGEST]!a}",
            hint="rasura push … --license NAME",
        )
    return {"license": slug} if slug in _KNOWN else {"license": _OTHER, "license_name": slug}


def choose_licence(
    asked: str | None, signed: Sequence[str], written: Mapping[str, str], inherited: Mapping[str, str]
) -> Licence:
    """Which licence a card carries, the first of these that somebody has said.

    Args:
        asked: by `push --license`.
        signed: what the patches' manifests say, one text a patch, "" where one says nothing.
        written: what the card says already.
        inherited: what the base's page on the Hub says.
    """
    own = {
        front["license"] + front.get("license_name", ""): front for front in map(parse_licence, filter(None, signed))
    }
    if asked:
        wanted = parse_licence(asked)
        against = sorted({text for text in signed if text and parse_licence(text) != wanted})
        differ = f"the card says {asked}, as asked; patches in it are signed as {', '.join(against)}"
        return Licence(wanted, (differ,) if against else ())
    if len(own) > 1:
        several = " and ".join(sorted({text for text in signed if text}))
        return Licence(
            {"license": _OTHER, "license_name": "see-the-table"},
            (f"the patches have several licences ({several}); the card's table says which has which",),
        )
    if own:
        (found,) = own.values()
        old = Licence(written)
        changed = f"the card's licence was {old.shown}; the patches are signed as {Licence(found).shown}"
        return Licence(found, (changed,) if old.shown and dict(written) != found else ())
    if written or inherited:
        return Licence(written or inherited)
    return Licence({}, ("the card names no licence: say one with --license, or have it signed when the patch is made",))
