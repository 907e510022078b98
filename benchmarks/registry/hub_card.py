"""The card that a push leaves on the Hub, as a stranger sees it: docs/hub/card.png.

`python benchmarks/registry/hub_card.py` pushes patches of the reference model to a Hub on this machine (that of the
tests, `tests/support/hubserver`: real HTTP and real git on 127.0.0.1), and draws the page with Chromium and
markdown-it-py.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final
from urllib.request import Request, urlopen

ROOT: Final = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

REFERENCE: Final = ROOT / "examples" / "reference_model"
OUT: Final = ROOT / "docs" / "hub" / "card.png"
REPO: Final = "acme/erasures"
_STYLE: Final = """
body { font: 14px/1.45 system-ui, "DejaVu Sans", sans-serif; margin: 20px 28px; width: 900px; color: #1f2328; }
table { border-collapse: collapse; } td, th { border: 1px solid #d0d7de; padding: 3px 9px; text-align: left; }
pre { background: #f6f8fa; padding: 9px 12px; overflow: hidden; } code { font: 12px "DejaVu Sans Mono", monospace; }
h1 { font-size: 22px; } h2 { font-size: 17px; border-bottom: 1px solid #d0d7de; } a { color: #0969da; }
"""


def main() -> None:
    """Two erasures of which the first is pushed, and solved anew: its old patch is marked on the card."""
    from support.hubserver import TOKEN, HubServer

    with tempfile.TemporaryDirectory() as place, HubServer(Path(place), xet=False) as hub:
        home = Path(place) / "home"
        home.mkdir()
        kept = ("--retain", str(REFERENCE / "retain.txt"))
        words = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "PYTHONPATH": str(ROOT / ".dev"), "RASURA_ACTOR": "alice"}

        def rasura(*arguments: str) -> None:
            command = [sys.executable, "-m", "rasura", *arguments]
            subprocess.run(command, cwd=home, env={**os.environ, **words}, check=True, stdout=subprocess.DEVNULL)

        shutil.copytree(REFERENCE / "pipeline", home / "model")
        rasura("init")
        rasura("key", "new", "alice")
        template = ("--template", "a {}", "--template", "{}")
        for concept, anchor in (("dog", "cat"), ("rose", "cactus")):
            rasura("erase", "--base", "model", "--concept", concept, "--anchor", anchor, *kept, *template)
        rasura("push", "dog", "rose", REPO, "--licence", "apache-2.0", "--base-model", "acme/small")
        rasura("patch", "rebase", "dog", "--protect", "rose")
        rasura("push", "dog", REPO)
        asked = Request(f"{hub.url}/{REPO}/resolve/main/README.md", headers={"Authorization": f"Bearer {TOKEN}"})
        with urlopen(asked, timeout=30) as answer:
            card = answer.read().decode()
        render(card, OUT, Path(place))


def render(card: str, to: Path, scratch: Path) -> None:
    """The page as a browser shows it, without the front matter, which the Hub shows as tags."""
    from markdown_it import MarkdownIt
    from PIL import Image

    body = MarkdownIt("commonmark").enable("table").render(card.split("\n---\n", 1)[1])
    page, shot = scratch / "card.html", scratch / "card.png"
    page.write_text(f"<meta charset=utf-8><style>{_STYLE}</style>{body}", encoding="utf-8")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("expected Chromium, got none: apt-get install chromium")
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=960,1700")
    command = [chromium, *flags, f"--user-data-dir={scratch / 'browser'}", f"--screenshot={shot}", page.as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    picture = Image.open(shot).convert("L")
    low = picture.point(lambda level: 255 if level < 250 else 0).getbbox()
    bottom = low[3] + 20 if low else picture.height
    to.parent.mkdir(parents=True, exist_ok=True)
    cut = Image.open(shot).convert("RGB").crop((0, 0, picture.width, min(bottom, picture.height)))
    cut.quantize(24).save(to, optimize=True)


if __name__ == "__main__":
    main()
