# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""A pipeline on a CUDA device: its digests are those that the folder's fp16 files get on the CPU."""

from typing import Any

import pytest
import torch
from support.models.tiny import tiny_pipeline
from support.registries.workshop import ALICE, SPEC, Workshop, workshop

from rasura.api.attach import attach
from rasura.registry.apply import operations

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("where", ["cpu", "pinned", "device", "folder"])
def test_the_digest_on_the_device_is_the_one_predicted_on_a_cpu(where: str, workshop: Workshop) -> None:
    pipe = tiny_pipeline(SPEC).to("cuda")
    before = {n: p.clone() for n, p in pipe.unet.named_parameters()}
    addresses = {n: p.data_ptr() for n, p in pipe.unet.named_parameters()}
    keep_on: Any = workshop.model if where == "folder" else where
    with attach(pipe, workshop.folder, keep_on=keep_on) as model:
        live = model.apply(workshop.all)
        assert model.status(deep=True).drifted == ()
        model.revert()
    assert all(torch.equal(p, before[n]) for n, p in pipe.unet.named_parameters())
    assert {n: p.data_ptr() for n, p in pipe.unet.named_parameters()} == addresses
    with workshop.open() as registry:
        assert operations.apply(registry, workshop.host(), workshop.all, ALICE).after == live.after


def test_a_captured_graph_draws_with_the_new_weights(workshop: Workshop) -> None:
    """Addresses stay, so a graph that was captured before reads what was written after."""
    pipe = tiny_pipeline(SPEC).to("cuda")
    unet: Any = pipe.unet
    latent = torch.linspace(-1, 1, 4 * 16 * 16, device="cuda", dtype=torch.float16).reshape(1, 4, 16, 16)
    width = unet.config.cross_attention_dim
    text = torch.linspace(-3, 3, 77 * width, device="cuda", dtype=torch.float16).reshape(1, 77, width)
    with torch.no_grad():
        for _ in range(3):
            unet(latent, 10, encoder_hidden_states=text)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            drawn = unet(latent, 10, encoder_hidden_states=text)[0]
    graph.replay()
    plain = drawn.clone()
    with attach(pipe, workshop.folder) as model, model.applied(workshop.all):
        graph.replay()
        torch.cuda.synchronize()
        assert not torch.equal(drawn, plain)
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(drawn, plain)
