"""The judge that a person named."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rasura.evaluation.images.questions import Question
from rasura.evaluation.judges.classifier import load_judge
from rasura.evaluation.judges.clip import load_clip_judge
from rasura.evaluation.judges.interface import CLIP, ONNX, TEMPLATE, Judge, check_labels, list_named_labels


def open_judge(spec: str, asked: Sequence[Question], template: str = TEMPLATE, device: str = "cpu") -> Judge:
    """The judge that a person named: a classifier's folder, `clip:` and a CLIP model's, or `onnx:FILE[:LABELS]`.

    Args:
        spec: as typed.
        asked: what it will be asked; a CLIP judge chooses among the labels that are named here.
        template: how a CLIP judge says a label; with one `{}`.
        device: where it runs.

    Raises:
        NotFoundError: no such folder, or no judge in it.
        FormatError: a judge that cannot be read.
        InputError: what runs it is not installed, or it does not know a label that is asked for.
    """
    judge: Judge
    if spec.startswith(CLIP):
        judge = load_clip_judge(Path(spec.removeprefix(CLIP)), list_named_labels(asked), template, device)
    elif spec.startswith(ONNX):
        from rasura.evaluation.judges.onnx import load_onnx_judge  # needs onnxruntime, an extra

        judge = load_onnx_judge(spec.removeprefix(ONNX))
    else:
        judge = load_judge(Path(spec), device)
    check_labels(judge, asked)
    return judge
