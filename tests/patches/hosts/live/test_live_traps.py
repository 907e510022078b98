"""Ways to write into a live model that torch accepts and the model never reads: each shown, then done right or refused.

Every case has the same judge: what the model gives for fixed inputs. A write that lasts changes it, and so does not the
naive one; after going back it is the same to the bit.
"""

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import accelerate  # type: ignore[import-untyped]
import pytest
import torch
from accelerate.utils import OffloadedWeightsLoader, offload_state_dict  # type: ignore[import-untyped]
from diffusers.hooks import apply_group_offloading
from safetensors.torch import load_file, save_file
from support.full import some
from support.models.tiny_families import TinyFamily, short_family, tiny_family
from torch import nn

from rasura.patches.errors import UnsupportedHostError
from rasura.patches.hosts.live.torch_host import TorchHost
from rasura.patches.types import ParamName

ROOT = Path(__file__).parents[4]
CPU = torch.device("cpu")
KEYS = ParamName("unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight")
LAYER = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k"


@pytest.fixture
def family() -> TinyFamily:
    return tiny_family("SD 2.x")


def unet_of(family: TinyFamily) -> Any:
    return family.components["unet"]


def host_of(family: TinyFamily) -> TorchHost:
    return TorchHost(family.components, family.name)


def layer_of(family: TinyFamily) -> nn.Module:
    return family.components["unet"].get_submodule(LAYER)


def naive(family: TinyFamily) -> None:
    """What scripts do."""
    weight = layer_of(family).weight
    assert isinstance(weight, torch.Tensor)
    weight.data.mul_(3)


def cycle(family: TinyFamily, name: ParamName = KEYS) -> None:
    """Write, look at what the model draws, go back; forwards before and after each step."""
    host = host_of(family)
    before, digests = family.draw(), host.digests([name])
    host.write({name: host.read([name])[name] * 3})
    written = host.digests([name])
    after = family.draw()
    assert not torch.equal(after, before)
    assert torch.equal(family.draw(), after)
    assert host.digests([name]) == written != digests
    host.write(host.originals([name]), forget=[name])
    assert torch.equal(family.draw(), before)
    assert host.digests([name]) == digests
    assert host.kept() == frozenset()


# --- Offloading -------------------------------------------------------------------------------------------------------


def _sequential(family: TinyFamily) -> None:
    accelerate.cpu_offload(unet_of(family), execution_device=CPU)


def _sequential_whole_blocks(family: TinyFamily) -> None:
    """One hook for a whole attention block: the weights lie in the map of a module further up."""
    accelerate.cpu_offload(unet_of(family), execution_device=CPU, preload_module_classes=["Attention"])


def _device_map(family: TinyFamily) -> None:
    unet = unet_of(family)
    spread = {name: "cpu" for name, _ in unet.named_children()}
    accelerate.dispatch_model(unet, device_map=spread, main_device="cpu", force_hooks=True)


def _group(kind: str) -> Callable[[TinyFamily], None]:
    def offload(family: TinyFamily) -> None:
        apply_group_offloading(
            unet_of(family), onload_device=CPU, offload_device=CPU, offload_type=kind, num_blocks_per_group=1
        )

    return offload


def _model(family: TinyFamily) -> None:
    accelerate.cpu_offload_with_hook(unet_of(family), CPU)


@pytest.mark.parametrize("offload", [_sequential, _sequential_whole_blocks], ids=lambda each: each.__name__)
def test_a_naive_write_to_a_sequentially_offloaded_model_is_lost(
    offload: Callable[[TinyFamily], None], family: TinyFamily
) -> None:
    offload(family)
    before = family.draw()
    naive(family)
    assert torch.equal(family.draw(), before)


@pytest.mark.parametrize(
    "offload",
    [_sequential, _sequential_whole_blocks, _device_map, _group("leaf_level"), _group("block_level"), _model],
    ids=["sequential", "whole blocks", "device map", "group leaf", "group block", "model"],
)
def test_offloaded_models_are_written_where_the_next_forward_reads(
    offload: Callable[[TinyFamily], None], family: TinyFamily
) -> None:
    plain = host_of(family)
    expected, picture = plain.digests(plain.parameters()), family.draw()
    offload(family)
    host = host_of(family)
    assert host.digests(host.parameters()) == expected
    assert torch.equal(family.draw(), picture)
    cycle(family)
    assert host.digests(host.parameters()) == expected


def test_what_was_applied_before_offloading_is_reverted_after_it(family: TinyFamily) -> None:
    before = family.draw()
    host_of(family).write({KEYS: torch.zeros(16, 32)})
    patched = family.draw()
    _sequential(family)
    host = host_of(family)
    assert torch.equal(family.draw(), patched)
    host.write(host.originals([KEYS]), forget=[KEYS])
    assert torch.equal(family.draw(), before)


def test_weights_offloaded_to_disk_are_refused(family: TinyFamily, tmp_path: Path) -> None:
    """Each forward makes new tensors from a file: whatever is written to one of them is lost."""
    unet = unet_of(family)
    accelerate.disk_offload(unet, str(tmp_path / "weights"), execution_device=CPU)
    before = family.draw()
    naive(family)
    assert torch.equal(family.draw(), before)
    with pytest.raises(UnsupportedHostError, match="whose values lie on disk"):
        host_of(family).read([KEYS])
    with pytest.raises(UnsupportedHostError, match="whose values lie on disk"):
        host_of(family).write({KEYS: torch.ones(16, 32)})
    assert torch.equal(family.draw(), before)


def test_a_map_with_a_part_on_disk_is_written_where_it_is_in_memory(family: TinyFamily, tmp_path: Path) -> None:
    """As `device_map` makes one when a model fits neither the device nor the memory."""
    unet = unet_of(family)
    state = unet.state_dict()
    other = f"{LAYER.replace('to_k', 'to_v')}.weight"
    offload_state_dict(tmp_path, {other: state[other]})
    weights = OffloadedWeightsLoader({key: t for key, t in state.items() if key != other}, save_folder=tmp_path)
    accelerate.hooks.attach_align_device_hook(unet, execution_device=CPU, offload=True, weights_map=weights)
    cycle(family)
    with pytest.raises(UnsupportedHostError, match="whose values lie on disk"):
        host_of(family).read([ParamName(f"unet.{other}")])


def test_a_model_over_memory_and_disk_is_written_where_it_is_in_memory(family: TinyFamily, tmp_path: Path) -> None:
    """`device_map` as accelerate spreads it; what it put on disk is of meta tensors, and read anew for each forward."""
    unet, before = unet_of(family), family.draw()
    spread = {name: "cpu" for name, _ in unet.named_children()} | {"up_blocks": "disk"}
    accelerate.dispatch_model(unet, device_map=spread, main_device="cpu", offload_dir=str(tmp_path), force_hooks=True)
    assert torch.equal(family.draw(), before)
    above = next(name for name, _ in unet.named_parameters() if re.fullmatch(r"up_blocks\..*attn2\.to_k\.weight", name))
    weight = unet.get_parameter(above)
    assert weight.is_meta
    weight.data.mul_(3)  # a naive write
    assert torch.equal(family.draw(), before)
    cycle(family)
    for names in ([f"unet.{above}"], [KEYS, f"unet.{above}"]):
        with pytest.raises(UnsupportedHostError, match="whose values lie on disk"):
            host_of(family).write({ParamName(name): torch.ones(16, 32) for name in names})
    assert torch.equal(family.draw(), before)


def test_meta_tensors_without_a_hook_are_refused(family: TinyFamily) -> None:
    layer_of(family).to("meta")
    naive(family)
    with pytest.raises(UnsupportedHostError, match="meta device"):
        host_of(family).read([KEYS])
    with pytest.raises(UnsupportedHostError, match="meta device"):
        host_of(family).write({KEYS: torch.ones(16, 32)})


def _streamed(family: TinyFamily) -> list[Any]:
    """Groups with CPU copies, as a stream makes them. Without a device with streams, the copies are made here."""
    _group("leaf_level")(family)
    groups = [
        hook.group
        for module in unet_of(family).modules()
        for hook in getattr(getattr(module, "_diffusers_hook", None), "hooks", {}).values()
        if hasattr(hook, "group")
    ]
    for group in groups:
        group.stream, group.record_stream = torch.cpu.Stream(), True
        tensors = [*group.parameters, *(each for module in group.modules for each in module.parameters())]
        group.cpu_param_dict = {each: each.data for each in tensors}
    return groups


def test_a_write_to_a_streamed_group_on_the_device_is_lost_and_refused(family: TinyFamily) -> None:
    weight = layer_of(family).weight
    (group,) = (each for each in _streamed(family) if weight in each.cpu_param_dict)
    assert isinstance(weight, nn.Parameter)
    host = host_of(family)
    between = host.digests([KEYS])
    host.write({KEYS: torch.ones(16, 32)})  # between forwards the copy itself lies on the module
    weight.data = group.cpu_param_dict[weight].clone()  # what loading to a device does
    with pytest.raises(UnsupportedHostError, match="replace by its older copy") as caught:
        host.write(host.originals([KEYS]), forget=[KEYS])
    assert "wait until no forward is running" in caught.value.hint
    weight.data.zero_()
    group._offload_to_memory()  # diffusers' own
    assert bool((weight == 1).all())  # the zeros are gone
    host.write(host.originals([KEYS]), forget=[KEYS])
    assert host.digests([KEYS]) == between
    assert group.cpu_param_dict[weight].data_ptr() == weight.data_ptr()


def test_a_group_on_disk_is_refused(family: TinyFamily, tmp_path: Path) -> None:
    apply_group_offloading(
        unet_of(family),
        onload_device=CPU,
        offload_device=CPU,
        offload_type="leaf_level",
        offload_to_disk_path=str(tmp_path),
    )
    before = family.draw()
    naive(family)
    assert torch.equal(family.draw(), before)
    with pytest.raises(UnsupportedHostError, match="reads from its own file"):
        host_of(family).write({KEYS: torch.ones(16, 32)})


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["leaf_level", "block_level"])
def test_group_offloading_with_a_real_stream(kind: str, family: TinyFamily) -> None:
    unet, cuda = unet_of(family), torch.device("cuda")
    family.components.pop("text_encoder")
    for key, value in list(family.inputs.items()):
        family.inputs[key] = value.to(cuda)  # type: ignore[index]
    apply_group_offloading(
        unet, onload_device=cuda, offload_device=CPU, offload_type=kind, num_blocks_per_group=1, use_stream=True
    )
    cycle(family)


@pytest.mark.gpu
@pytest.mark.parametrize("offload", [accelerate.cpu_offload, accelerate.cpu_offload_with_hook])
def test_offloading_from_a_real_device(offload: Callable[..., Any], family: TinyFamily) -> None:
    family.components.pop("text_encoder")
    offload(unet_of(family), execution_device=torch.device("cuda"))
    cycle(family)


# --- Layerwise casting, fused projections, tied weights ---------------------------------------------------------------


def test_casting_that_rounds_at_every_forward_is_refused(family: TinyFamily) -> None:
    """What is written comes back rounded after one forward, so no digest would hold."""
    family.components["text_encoder"].half()
    unet_of(family).enable_layerwise_casting(storage_dtype=torch.float16, compute_dtype=torch.bfloat16)
    small = TinyFamily("cast", {"unet": unet_of(family)}, {k: v.bfloat16() for k, v in family.inputs.items()})
    weight = layer_of(small).weight
    assert isinstance(weight, nn.Parameter)
    weight.data.fill_(1 + 2**-9)
    small.draw()
    assert bool((weight == 1).all())
    with pytest.raises(UnsupportedHostError, match="layerwise casting rounds to bfloat16") as caught:
        host_of(small).write({KEYS: torch.ones(16, 32).half()})
    assert "wider compute_dtype" in caught.value.hint


def test_casting_that_keeps_every_digit_is_fine(family: TinyFamily) -> None:
    unet_of(family).enable_layerwise_casting(storage_dtype=torch.bfloat16, compute_dtype=torch.float32)
    cycle(TinyFamily("cast", {"unet": unet_of(family)}, family.inputs))


FUSED = {
    "SD 2.x": ("unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight", "to_kv"),
    "SD3": ("transformer.transformer_blocks.0.attn.add_k_proj.weight", "to_added_qkv"),
    "FLUX": ("transformer.transformer_blocks.0.attn.to_v.weight", "to_qkv"),
}


@pytest.mark.parametrize("name", FUSED)
def test_fused_projections_are_refused_until_they_are_unfused(name: str) -> None:
    parameter, copy = ParamName(FUSED[name][0]), FUSED[name][1]
    family = tiny_family(name)
    part, key = parameter.split(".", 1)
    denoiser: Any = family.components[part]
    denoiser.fuse_qkv_projections()
    before = family.draw()
    denoiser.get_parameter(key).data.mul_(3)  # a naive write
    assert torch.equal(family.draw(), before)
    host = host_of(family)
    with pytest.raises(UnsupportedHostError, match=f"{copy} is a fused copy"):
        host.ensure_writable([parameter])
    denoiser.unfuse_qkv_projections()
    denoiser.get_parameter(key).data.div_(3)
    cycle(family, parameter)


def test_a_write_to_a_tied_weight_changes_its_twin() -> None:
    family = tiny_family("PixArt")
    encoder: Any = family.components["text_encoder"]
    encoder.shared.weight.data.zero_()  # a naive write
    assert not bool(encoder.encoder.embed_tokens.weight.any())
    with pytest.raises(UnsupportedHostError, match="the memory of text_encoder"):
        host_of(family).write({ParamName("text_encoder.shared.weight"): torch.ones(40, 64)})


def test_a_write_to_a_mapped_file_changes_the_file(family: TinyFamily, tmp_path: Path) -> None:
    """And so does every other process that has it: they compute meanwhile, and no gate of ours is around them."""
    file = tmp_path / "memory"
    file.write_bytes(bytes(16 * 32 * 4))
    for found in ("mapped", "shared"):
        if found == "mapped":
            storage = torch.UntypedStorage.from_file(str(file), shared=True, nbytes=16 * 32 * 4)
            mapped = torch.tensor([], dtype=torch.float32).set_(storage, 0, (16, 32))  # type: ignore[call-overload]
            layer_of(family).weight = nn.Parameter(mapped)
            mapped.fill_(1)  # a naive write
            assert any(file.read_bytes())
        else:
            layer_of(family).weight = nn.Parameter(torch.ones(16, 32))
            unet_of(family).share_memory()
        with pytest.raises(UnsupportedHostError, match="memory of several processes, or of a file") as caught:
            host_of(family).write({KEYS: torch.zeros(16, 32)})
        assert "by itself" in caught.value.hint


def test_weights_that_lie_in_their_file_are_written_beside_it(family: TinyFamily, tmp_path: Path) -> None:
    """A loader maps them so that a write makes pages of its own. A write to the file shows in those that have none."""
    file = tmp_path / "weights.safetensors"
    key = f"{LAYER}.weight"
    save_file({key: torch.ones(4096, 32)}, file)
    before = file.read_bytes()
    layer_of(family).weight = nn.Parameter(load_file(file)[key])
    host = host_of(family)
    pristine = host.digests([KEYS])
    with file.open("r+b") as opened:  # as patching the folder of a model that serves
        opened.seek(-4, 2)
        opened.write(bytes(4))
    assert host.digests([KEYS]) != pristine
    file.write_bytes(before)
    layer_of(family).weight = nn.Parameter(load_file(file)[key])
    host.write({KEYS: torch.zeros(4096, 32)})
    assert file.read_bytes() == before
    host.write(host.originals([KEYS]), forget=[KEYS])
    assert host.digests([KEYS]) == pristine


def test_a_tied_weight_that_is_offloaded_is_refused_and_read() -> None:
    """Offloaded from a device it is there once for each of its two layers, as in the copies here."""
    family = tiny_family("PixArt")
    name = ParamName("text_encoder.shared.weight")
    plain = host_of(family)
    expected = plain.digests(plain.parameters())
    encoder: Any = family.components["text_encoder"]
    state = {key: tensor.clone() for key, tensor in encoder.state_dict().items()}
    accelerate.cpu_offload(encoder, execution_device=CPU, state_dict=state)
    stored = [encoder.shared._hf_hook.weights_map, encoder.encoder.embed_tokens._hf_hook.weights_map]
    assert stored[0]["weight"].data_ptr() != stored[1]["weight"].data_ptr()
    host = host_of(family)
    assert host.digests(host.parameters()) == expected
    with pytest.raises(UnsupportedHostError, match="accelerate may hold twice"):
        host.write({name: torch.ones(40, 64)})
    cycle(family, ParamName("text_encoder.encoder.block.0.layer.1.DenseReluDense.wo.weight"))


# --- Compilers --------------------------------------------------------------------------------------------------------


@pytest.fixture
def compiler() -> Iterator[Any]:
    torch._dynamo.reset()
    yield torch._dynamo.config
    torch._dynamo.reset()


@pytest.mark.parametrize("backend", some(["aot_eager"], ["eager", "aot_eager"]))
def test_compiled_code_sees_the_new_weights_and_is_not_compiled_again(backend: str, compiler: Any) -> None:
    family = short_family()
    unet = unet_of(family)
    wrapped = TinyFamily("compiled", {"unet": torch.compile(unet, backend=backend)}, family.inputs)  # type: ignore[dict-item]
    wrapped.draw()
    with compiler.patch(error_on_recompile=True):
        cycle(wrapped)


class Doubled(nn.Module):
    """What a compiler can compute once for all, if the weight is a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ (self.weight * 2)


@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
@pytest.mark.skipif(" " in torch.__file__, reason="inductor's linker does not find torch in a path with a space")
def test_a_frozen_graph_computes_with_the_old_numbers(compiler: Any) -> None:
    import torch._inductor.config as inductor

    model, x, name = Doubled().eval(), torch.ones(1, 4), ParamName("unet.weight")
    host = TorchHost({"unet": model}, "frozen")
    # Otherwise Inductor compiles and runs ten programs, to find out what this processor's vectors are good for.
    plain = {"cpp.vec_isa_ok": False, "cpp_cache_precompile_headers": False}
    with torch.no_grad(), inductor.patch({**plain, "freezing": True}):
        compiled: Any = torch.compile(model)
        before = compiled(x).clone()
        model.weight.mul_(3)  # a naive write
        assert torch.equal(compiled(x), before)
        assert not torch.equal(model(x), before)
        with pytest.raises(UnsupportedHostError, match="frozen into its code"):
            host.write({name: torch.zeros(4, 4)})
    torch._dynamo.reset()
    with torch.no_grad(), inductor.patch(plain):
        host.write({name: torch.zeros(4, 4)})
        assert not bool(compiled(x).any())


def test_a_frozen_graph_is_refused(family: TinyFamily) -> None:
    import torch._inductor.config as inductor

    with inductor.patch(freezing=True), pytest.raises(UnsupportedHostError, match="frozen into its code") as caught:
        host_of(family).write({KEYS: torch.ones(16, 32)})
    assert "freezing = False" in caught.value.hint


@pytest.mark.gpu
def test_a_cuda_graph_replays_the_new_weights(family: TinyFamily) -> None:
    layer = layer_of(family).to("cuda")
    static = torch.randn(2, 32, device="cuda")
    with torch.no_grad():
        layer(static)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = layer(static)
        graph.replay()
        before = out.clone()
        host = host_of(family)
        host.write({KEYS: torch.zeros(16, 32)})
        graph.replay()
        assert not torch.equal(out, before)
        host.write(host.originals([KEYS]), forget=[KEYS])
        graph.replay()
    assert torch.equal(out, before)


# --- Changes of the model under a patch -------------------------------------------------------------------------------


def test_a_model_cast_while_patched_is_not_put_back_from_other_bits(family: TinyFamily) -> None:
    host = host_of(family)
    host.write({KEYS: torch.ones(16, 32)})
    unet_of(family).half()
    with pytest.raises(
        UnsupportedHostError, match="expected F32, as when it was patched, got F16: the model was cast since"
    ):
        host.originals([KEYS])


def test_a_wrapper_in_front_of_every_name_is_no_part_of_it(family: TinyFamily) -> None:
    """DataParallel's parameters are `module.…`: the module's own tensors, which a file may hold under these names, too."""
    wrapped = nn.DataParallel(unet_of(family))
    host = TorchHost({"unet": wrapped}, "wrapped")
    (value,) = host.read([KEYS]).values()
    assert torch.equal(value, host_of(family).read([KEYS])[KEYS])
    host.write({KEYS: torch.ones_like(value)})
    assert torch.equal(host_of(family).read([KEYS])[KEYS], torch.ones_like(value))


def test_reparametrised_layers_are_refused(family: TinyFamily) -> None:
    """The weight is computed from others at every forward; what is written to it is overwritten."""
    torch.nn.utils.parametrizations.weight_norm(layer_of(family), "weight")
    before = family.draw()
    naive(family)
    assert torch.equal(family.draw(), before)
    with pytest.raises(UnsupportedHostError, match=f"expected a parameter {KEYS}, got none"):
        host_of(family).write({KEYS: torch.ones(16, 32)})
