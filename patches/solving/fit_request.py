"""A request whose lists the text encoder can read, before minutes are spent on it."""

from __future__ import annotations

from dataclasses import replace

from rasura.patches.erasers.request import EraseRequest
from rasura.patches.models.text_encoders.text_encoder import TextEncoder
from rasura.patches.prompts.fit_prompts import fit_list

__all__ = ["fit_request"]


def fit_request(encoder: TextEncoder, request: EraseRequest) -> EraseRequest:
    """The request, with texts of its lists cut that are too long, where that was allowed.

    Raises:
        ConceptError: a text is too long and may not be cut; its line is named.
    """
    retain, held_out = request.retain, request.held_out_from
    if retain is not None:
        retain = fit_list(encoder, retain, request.retained_templates)
    if held_out is None:
        return replace(request, retain=retain)
    held_out = fit_list(encoder, held_out, request.held_out_templates)
    return replace(request, retain=retain, held_out=held_out.concepts, held_out_from=held_out)
