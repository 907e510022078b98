"""The methods of the tables: published choices, and beside them those that suit the reference model."""

from scenarios import Way

WAYS = (
    Way("null-space", "null-space"),
    Way("speed, as published", "speed", bare=True),
    Way("speed, tail", "speed", tokens="tail", rule="relative:1e-3"),
    Way("uce 2025", "uce", {"variant": "2025"}, bare=True),
    Way("uce 2023", "uce", {"variant": "2023"}),
    Way("rece", "rece"),
    Way("clip-null-space, mapped", "clip-null-space", {"values": "mapped"}),
    Way("clip-null-space, guided", "clip-null-space", {"values": "guided"}),
    Way("sepme", "sepme", rule="relative:1e-6", none=True),
    Way("all-but-one, kv", "all-but-one"),
    Way("all-but-one, out", "all-but-one", layers="out"),
)
ABLATION = (
    Way("null space alone", "speed", {"iec": "no", "ipf": "no", "aug": "0"}, tokens="tail", rule="relative:1e-3"),
    Way("+ IEC", "speed", {"iec": "yes", "ipf": "no", "aug": "0"}, tokens="tail", rule="relative:1e-3"),
    Way("+ IPF", "speed", {"iec": "yes", "ipf": "yes", "aug": "0"}, tokens="tail", rule="relative:1e-3"),
    Way("+ DPA (all)", "speed", {"iec": "yes", "ipf": "yes", "aug": "10"}, tokens="tail", rule="relative:1e-3"),
)
GROWTH = (
    Way("null-space", "null-space"),
    Way("speed", "speed", tokens="tail", rule="relative:1e-3"),
    Way("uce 2025", "uce", {"variant": "2025"}, bare=True),
    Way("uce 2023", "uce", {"variant": "2023"}),
)
SCENE_WAY = Way("sepme", "sepme", rule="relative:1e-6", none=True)
