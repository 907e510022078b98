"""Every table of docs/crowded.md, on the crowded world.

    python benchmarks/crowded/crowded.py --model FOLDER [STAGE…]

The stages are methods, ablation, anchors, prediction, attacks, curve; without a name all of them are run.

FOLDER is what examples/crowded_world/training exports: pipeline, judge, concepts. Patches and pictures are kept in
`.results/crowded`: a run that was cut off goes on where it stopped. Numbers go to docs/crowded/STAGE.json; a row that
stands there is not measured again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from crowded_anchors import measure_anchors
from crowded_bench import ROOT, CrowdedBench
from crowded_curve import measure_curve
from crowded_page import PAGE, rewrite
from crowded_predict import measure_prediction
from crowded_stages import keep, measure_ablation, measure_attacks, measure_methods
from origin import machine

STAGES = {
    "methods": measure_methods,
    "ablation": measure_ablation,
    "anchors": measure_anchors,
    "prediction": measure_prediction,
    "attacks": measure_attacks,
    "curve": measure_curve,
}


def main() -> None:
    """Run the stages that were named, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", nargs="*", choices=[[], *STAGES, "page"], help="what to run")
    parser.add_argument("--model", type=Path, default=ROOT / "examples" / "crowded_world")
    args = parser.parse_args()
    chosen = args.stage or list(STAGES)
    if chosen != ["page"]:
        bench = CrowdedBench(args.model)
        for name in chosen:
            STAGES[name](bench)
        keep("machine", machine())
    PAGE.write_text(rewrite(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
