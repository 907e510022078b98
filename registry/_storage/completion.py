"""Names for a shell to complete: read from the SQLite file itself, because a key press has no time for more.

Whatever goes wrong, there is nothing to complete: no registry, another schema, a database on a server.
"""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from typing import Final, Literal, TypeAlias

from rasura.registry._storage.location import Location

__all__ = ["Kind", "list_names"]

Kind: TypeAlias = Literal["patch", "stack", "base", "key"]

_MOST: Final = 500
_SECONDS: Final = 0.1
_QUERIES: Final[Mapping[Kind, str]] = {
    "patch": "SELECT patch_id, concept FROM patch_concept ORDER BY patch_id LIMIT ?",
    "stack": "SELECT name, '' FROM stack ORDER BY name LIMIT ?",
    "base": "SELECT name, '' FROM base ORDER BY name LIMIT ?",
    "key": "SELECT name, '' FROM signing_key ORDER BY name LIMIT ?",
}


def list_names(place: Location, kind: Kind, begun: str) -> list[tuple[str, str]]:
    """What begins like this, each with what it says of itself: of patches identifiers, and concepts of one word."""
    if place.url is not None or not place.database.is_file():
        return []
    try:
        with closing(sqlite3.connect(f"{place.database.as_uri()}?mode=ro", uri=True, timeout=_SECONDS)) as database:
            rows = database.execute(_QUERIES[kind], (_MOST,)).fetchall()
    except sqlite3.Error:
        return []
    if kind != "patch":
        return [(name, said) for name, said in rows if name.startswith(begun)]
    words = (concept for _, concept in rows if concept.split() == [concept])
    concepts = dict.fromkeys(word for word in words if word.startswith(begun))
    return [(concept, "concept") for concept in concepts] + [
        (patch_id[:12], concept) for patch_id, concept in rows if patch_id.startswith(begun.lower())
    ]
