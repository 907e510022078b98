"""Networks that see all rows of a prompt before a layer reads it: what is read is what the pipeline draws from."""

import json
from pathlib import Path

import pytest
import torch
from support.models.tiny_pipelines import draw, open_tiny, tiny_of

from rasura.patches.errors import UnsupportedHostError
from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.patches.models.text_encoders.readout import load_readout
from rasura.patches.models.text_encoders.text_encoder import TextEncoder


def test_what_a_fusion_of_the_prompt_gives_is_what_the_layer_reads_while_it_is_drawn(tmp_path: Path) -> None:
    """Krea 2's, which the pipeline fills up in the middle: its own rows, one after the other, and zeros behind them."""
    model = tiny_of(tmp_path / "model", "Krea 2")
    encoder = TextEncoder.pristine(CheckpointHost.open(model)).reading_for("text")
    assert encoder.readout is not None
    pipeline, seen = open_tiny(model), list[torch.Tensor]()
    pipeline.transformer.txt_in.linear_1.register_forward_pre_hook(lambda _module, given: seen.append(given[0]))
    for prompt in ("a photo of dog", "dog"):
        seen.clear()
        draw(pipeline, prompt)
        _, mask = pipeline.encode_prompt([prompt])
        count = int(mask.sum())
        assert not bool(mask[0, count - 1])  # filling stands before the template's end
        (own,) = encoder.encode_all([prompt])
        assert torch.allclose(own[:count].float(), seen[0][0][mask[0]], atol=1e-5)
        assert not own[count:].any()
        (tower,), (place,) = encoder.towers, encoder.places(prompt, "dog")
        assert tower.tokenizer.decode([tower.ids(prompt)[at] for at in place.subject]).strip() == "dog"
        assert (place.start, place.stop) == (0, count)


def test_a_pipeline_that_is_told_to_read_other_layers_is_refused(tmp_path: Path) -> None:
    model = tiny_of(tmp_path / "model", "Krea 2")
    index = json.loads((model / "model_index.json").read_text())
    (model / "model_index.json").write_text(json.dumps(index | {"text_encoder_select_layers": [1, 2, 3]}))
    with pytest.raises(UnsupportedHostError, match=r"expected text_encoder_select_layers \[2, 5, .*got \[1, 2, 3\]"):
        TextEncoder.pristine(CheckpointHost.open(model))


def test_a_module_that_takes_a_mask_in_a_way_that_is_not_known_is_not_run(tmp_path: Path) -> None:
    host = CheckpointHost.open(tiny_of(tmp_path / "model", "HunyuanVideo"))
    with pytest.raises(UnsupportedHostError, match="how a HunyuanVideoTokenRefiner is called is not known"):
        load_readout(host, host.folder, ["transformer.context_embedder"])
