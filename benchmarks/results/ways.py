"""The methods of the tables: published choices, and beside them those that suit the reference model."""

from scenarios import Way

WHOLE = {"kept": "all", "ipf": "no", "aug": "0", "energy": "0.9"}
"""SPEED with all tokens of retained prompts: the reference model's padding carries more than its subject tokens."""

WAYS = (
    Way("null-space", "null-space"),
    Way("speed, as published", "speed", bare=True),
    Way("speed, whole prompts kept", "speed", WHOLE, rule="relative:1e-3"),
    Way("clip-null-space, states", "clip-null-space"),
    Way("clip-null-space, mapped", "clip-null-space", {"values": "mapped"}, single=True),
    Way("clip-null-space, guided", "clip-null-space", {"values": "guided"}, single=True),
    Way("sepme", "sepme"),
    Way("all-but-one, kv", "all-but-one"),
    Way("all-but-one, out", "all-but-one", layers="out", single=True),
    Way("uce 2023", "uce", {"variant": "2023", "energy": "0.9"}),
    Way("uce 2025, as published", "uce", {"variant": "2025"}, bare=True),
    Way("uce 2025, templates", "uce", {"variant": "2025", "energy": "0.9"}),
    Way("rece", "rece", bare=True),
)
_TAIL = {"energy": "0.9", "kept": "all"}
ABLATION = (
    Way("null space alone", "speed", {**_TAIL, "iec": "no", "ipf": "no", "aug": "0"}, tokens="tail"),
    Way("+ IEC", "speed", {**_TAIL, "iec": "yes", "ipf": "no", "aug": "0"}, tokens="tail"),
    Way("+ IPF", "speed", {**_TAIL, "iec": "yes", "ipf": "yes", "aug": "0"}, tokens="tail"),
    Way("+ DPA (all)", "speed", {**_TAIL, "iec": "yes", "ipf": "yes", "aug": "10"}, tokens="tail"),
)
GROWTH = (
    Way("null-space", "null-space"),
    Way("speed, whole prompts kept", "speed", WHOLE, rule="relative:1e-3"),
    Way("uce 2025, as published", "uce", {"variant": "2025"}, bare=True),
    Way("uce 2025, templates", "uce", {"variant": "2025", "energy": "0.9"}),
)
SCENE_WAY = Way("sepme", "sepme", none=True)
SCENE_EXACT = Way("sepme, exact", "sepme", {"tolerance": "0"}, none=True)
"""Whole prompts of all others to the last direction: four concepts are as many as a width of 384 has room for."""
ATTACKED = (
    "null-space",
    "speed, whole prompts kept",
    "clip-null-space, states",
    "sepme",
    "all-but-one, kv",
    "uce 2025, templates",
    "rece",
)
"""One choice of each method: an attack takes a minute."""
