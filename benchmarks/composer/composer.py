"""Every table and picture of docs/composer.md, on the reference model.

    python benchmarks/composer/composer.py [STAGE…]      study, ways; without a name all of them, then the page

Patches and pictures are kept in `.results`: a run that was cut off goes on where it stopped; nothing is drawn twice.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "results"))

from bench import ROOT, Bench
from study import study

FOLDER = ROOT / "docs" / "composer"
b = Bench()
FOLDER.mkdir(exist_ok=True)
(FOLDER / "study.json").write_text(json.dumps(study(b), indent=1) + "\n")
