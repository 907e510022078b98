"""Values under the UNet's guidance: what `fc2` should give so that the UNet sees the anchor in the concept's prompt.

Each round draws pictures of the concept with the pristine encoder, noises them, and for each layer in order lets Adam
move the values z of the concept's keys so that

    ‖ε(x_t, t, encoder carrying the edit, fc2 := z + bias (concept)) − ε(x_t, t, pristine encoder (anchor))‖²

falls; the increment that makes these values of those keys is added at once, before the next layer (Om Prakash et al.,
"Editing Concepts in Diffusion Models", 2025; their commit 3a5d03e). Positions before the subject keep their values:
their keys are everybody's, so no increment could change them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch

from rasura.patches.algebra.one_thread import use_all_threads
from rasura.patches.erasers.interface import Problem
from rasura.patches.erasers.text_encoder.alphaedit import Space
from rasura.patches.erasers.text_encoder.choices import Choices
from rasura.patches.erasers.text_encoder.edit import Edit, others_of
from rasura.patches.errors import NotFiniteError
from rasura.patches.models.denoiser import Denoiser
from rasura.patches.models.text_encoders.hidden_states import copy_encoder, embed_tokens, fc2_of, injected, states_of

_ROUNDS: Final = 1 << 20  # seeds of one concept lie so far from those of the next


@dataclass(frozen=True, slots=True, eq=False)
class _Scene:
    """Noised pictures of a concept, and what the UNet should see in them.

    Attributes:
        rows: which of the concept's prompts.
        ids: their tokens [n, length].
        noised: x_t [n, c, h, w].
        times: t [n].
        wanted: ε that the anchor's prompts give, [n, c, h, w].
    """

    rows: list[int]
    ids: torch.Tensor
    noised: torch.Tensor
    times: torch.Tensor
    wanted: torch.Tensor


@dataclass(frozen=True, slots=True, eq=False)
class _Studio:
    """Where pictures come from: the UNet, the pristine encoder beside it, and the method's choices."""

    denoiser: Denoiser
    pristine: Any
    null: torch.Tensor
    method: Choices

    def pictures(self, edit: Edit, seed: int) -> tuple[list[int], torch.Tensor]:
        """Some of a concept's prompts in a random order, and a latent picture of each from the pristine model."""
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(edit.ids.shape[0], generator=generator).tolist()
        # around again where prompts are fewer than pictures
        rows = [order[i % len(order)] for i in range(self.method.batch)]
        states = embed_tokens(self.pristine, edit.ids[rows])  # [n, length, d]
        start = self.denoiser.noise(seed, len(rows))  # [n, c, h, w]
        found, _ = self.denoiser.drawn(
            states, self.null, start, steps=self.method.draw_steps, guidance=self.method.guidance
        )
        return rows, found

    def scene(self, edit: Edit, rows: list[int], pictures: torch.Tensor, seed: int) -> _Scene:
        """The pictures under fresh noise, and what the anchor's prompts make of them."""
        generator = torch.Generator().manual_seed(seed)
        top = min(self.method.t_high, self.denoiser.steps - 1)  # a schedule may have fewer steps than were chosen
        times = torch.randint(min(self.method.t_low, top), top + 1, (len(rows),), generator=generator)
        noise = torch.randn(pictures.shape, generator=generator)  # on the CPU: the same on every device
        times, device = times.to(self.denoiser.device), self.denoiser.device
        noised = self.denoiser.noised(pictures, noise.to(device), times)
        goals = embed_tokens(self.pristine, edit.goal_ids[rows]).to(device)
        with torch.no_grad():
            wanted = self.denoiser.predict(noised, times, goals)
        return _Scene(rows, edit.ids[rows].to(device), noised, times, wanted)

    def loss(self, model: Any, scene: _Scene) -> torch.Tensor:
        """Mean squared difference of what the UNet predicts with this encoder, and what it should."""
        states = model(input_ids=scene.ids).last_hidden_state
        found = torch.nn.functional.mse_loss(self.denoiser.predict(scene.noised, scene.times, states), scene.wanted)
        if not bool(torch.isfinite(found)):
            raise NotFiniteError(
                "the guided loss is NaN or infinite: expected a number", hint="--set lr=0.05 (a shorter step)"
            )
        return found


@use_all_threads()
def guide(problem: Problem, edits: Sequence[Edit], known: Mapping[int, Space], method: Choices) -> list[dict[str, str]]:
    """Edit all concepts round by round; what the loss was and is on the first round's pictures, for each concept.

    Raises:
        NotFiniteError: a loss is NaN or infinite.
        ErasureRefusedError: a concept's keys lie inside what is protected.
    """
    denoiser = problem.denoiser()
    pristine = copy_encoder(problem.encoder.module).to(denoiser.device)
    studio = _Studio(denoiser, pristine, embed_tokens(pristine, problem.encoder.batch([""])), method)
    for edit in edits:
        edit.model.to(denoiser.device)
    # Fixed before the first round: what the others' keys become is taken out at the end, in `_part`.
    rooms = {(i, layer): method.room(edits, i, space) for layer, space in known.items() for i in range(len(edits))}
    shown: list[_Scene] = []
    for epoch in range(method.epochs):
        problem.progress("guiding", epoch, method.epochs)
        for i, edit in enumerate(edits):
            seed = method.seed + i * _ROUNDS + epoch * (len(known) + 1)
            rows, pictures = studio.pictures(edit, seed)
            for done, (layer, space) in enumerate(known.items()):
                scene = studio.scene(edit, rows, pictures, seed + done + 1)
                if epoch == done == 0:
                    shown.append(scene)  # kept to be measured before and after
                change, keys = _values(studio, edit, space, scene)
                delta = method.rewritten(edit, space, rooms[i, layer], change, keys)
                edit.put(space, edit.deltas.get(layer, 0) + delta)  # rounds add up, [d, d_ff]
    _part(edits, known, method)
    problem.progress("guiding", method.epochs, method.epochs)
    return [_facts(studio, edit, scene) for edit, scene in zip(edits, shown, strict=True)]


def _values(studio: _Studio, edit: Edit, space: Space, scene: _Scene) -> tuple[torch.Tensor, torch.Tensor]:
    """How the values of the scene's keys are to change, R [d, m], and the keys [d_ff, m]; float64 on the CPU."""
    keys = states_of(edit.model, scene.ids, [space.layer])[space.layer].keys  # [n, length, d_ff] float64
    weight = fc2_of(edit.model, space.layer).weight
    present = (keys.to(weight.device, torch.float32) @ weight.T).detach()  # [n, length, d]
    free = edit.mask(scene.rows).to(weight.device)[..., None]  # [n, length, 1]
    z = present.clone().requires_grad_()
    adam = torch.optim.Adam([z], studio.method.lr)
    for _ in range(studio.method.steps):
        # All other positions keep the values that they have, and give z no gradient.
        with injected(edit.model, space.layer, torch.where(free, z, present)):
            loss = studio.loss(edit.model, scene)
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
    change = torch.where(free, z - present, 0).detach().to("cpu", torch.float64)
    return edit.columns(change, scene.rows), edit.columns(keys, scene.rows)


def _part(edits: Sequence[Edit], known: Mapping[int, Space], method: Choices) -> None:
    """Take out of every edit what it does to the other concepts' keys as their edits have left these."""
    if len(edits) == 1:
        return
    for layer, space in known.items():
        rooms = [edit.room(space, others_of(edits, i, layer), method.guard_share) for i, edit in enumerate(edits)]
        for edit, room in zip(edits, rooms, strict=True):
            edit.put(space, room.project(edit.deltas[layer].T).T)  # ΔW P, [d, d_ff]


def _facts(studio: _Studio, edit: Edit, scene: _Scene) -> dict[str, str]:
    with torch.no_grad():
        before, after = studio.loss(studio.pristine, scene), studio.loss(edit.model, scene)
    return {"loss_before": f"{float(before):.3e}", "loss_after": f"{float(after):.3e}"}
