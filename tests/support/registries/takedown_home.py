"""A folder with a registry, a key, a copy of the reference model, and lists, as a takedown wants them."""

import shutil
from pathlib import Path
from typing import Final

from support.commandline import rasura

MODEL: Final = Path(__file__).resolve().parents[3] / "examples" / "reference_model"
RETAIN: Final = (
    "pig\nfrog\npenguin\nrose\nsunflower\ncactus\napple\nbanana\npizza\nairplane\numbrella\ncartoon\nink\npixel\n"
)
OBJECTS: Final = "{}\na {}\na picture of a {}\na {} in ink style\na {} in sketch style\n"
STYLES: Final = "{}\n{} style\nin {} style\na cat in {} style\na rose in {} style\n{} pig\n"


def make_home(folder: Path, *, retain: str = RETAIN, objects: str = OBJECTS) -> Path:
    """The folder, with `retain.txt`, `objects.txt` and `styles.txt` beside `model`."""
    shutil.copytree(MODEL / "pipeline", folder / "model")
    for name, text in (("retain.txt", retain), ("objects.txt", objects), ("styles.txt", STYLES)):
        (folder / name).write_text(text)
    rasura("init", cwd=folder)
    rasura("key", "new", "alice", cwd=folder)
    return folder
