"""Live modules: written in place, put back bit for bit, and refused where a write would be lost."""

import copy
import gc
import re
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import accelerate  # type: ignore[import-untyped]
import peft
import pytest
import torch
from accelerate.hooks import AlignDevicesHook  # type: ignore[import-untyped]
from support.models.tiny import TinySpec, tiny_components, tiny_model, tiny_pipeline
from torch import nn
from torch._C._distributed_c10d import HashStore
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, distribute_tensor

from rasura.patches.errors import HostWriteError, NotFiniteError, UnsupportedHostError
from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.patches.hosts.interface import Host
from rasura.patches.hosts.live.torch_host import TorchHost
from rasura.patches.types import ParamName

SPECS = [
    TinySpec(),
    TinySpec(dtype="float16"),
    TinySpec(dtype="bfloat16", sharded=True),
]
CPU = torch.device("cpu")
KEYS = ParamName("unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight")
VALUES = ParamName("unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_v.weight")


@pytest.fixture
def unet() -> Any:
    return tiny_components()["unet"]


def attention(unet: Any) -> Any:
    return unet.mid_block.attentions[0].transformer_blocks[0].attn2


def names_of(host: Host) -> list[ParamName]:
    return [name for name in host.parameters() if ".attn2.to_" in name or ".mlp.fc2." in name]


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.detach().contiguous().view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.dtype)
def test_the_same_values_have_the_same_names_and_digests_on_disk_and_live(spec: TinySpec, tmp_path: Path) -> None:
    live: Host = TorchHost.of(tiny_pipeline(spec))
    disk: Host = CheckpointHost.open(tiny_model(tmp_path / "model", spec))
    assert live.parameters() == disk.parameters()
    assert list(live.parameters()) == sorted(live.parameters())
    assert live.digests(live.parameters()) == disk.digests(disk.parameters())
    assert any(name.startswith("text_encoder.text_model.encoder.") for name in live.parameters())
    names = names_of(live)
    new = {name: tensor * 3 for name, tensor in live.read(names).items()}
    live.write(new)
    disk.write(new)
    assert live.digests(names) == disk.digests(names)
    assert live.original_digests(names) == disk.original_digests(names) != live.digests(names)


@pytest.mark.parametrize("keep_on", ["cpu", "device"])
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.dtype)
def test_a_full_cycle_is_bit_exact_and_moves_nothing(spec: TinySpec, keep_on: Any) -> None:
    parts = tiny_components(spec)
    host = TorchHost({"unet": parts["unet"], "text_encoder": parts["text_encoder"]}, "tiny", keep_on=keep_on)
    names = names_of(host)
    weights = dict(parts["unet"].named_parameters())
    with torch.no_grad():  # what subtraction could never restore
        attention(parts["unet"]).to_k.weight.view(-1)[:3] = torch.tensor([-0.0, 1e-7, 0.0])
    before = {key: bits(weight) for key, weight in weights.items()}
    addresses = {key: weight.data_ptr() for key, weight in weights.items()}
    first = host.read(names)
    for step in (2, 5):
        host.write({name: tensor + step for name, tensor in first.items()})
        assert all(torch.equal(tensor, first[name] + step) for name, tensor in host.read(names).items())
    assert host.kept() == frozenset(names)
    host.write(host.originals(names), forget=names)
    assert host.kept() == frozenset()
    assert {key: bits(weight) for key, weight in weights.items()} == before
    assert {key: weight.data_ptr() for key, weight in weights.items()} == addresses
    assert "_rasura_originals" not in vars(parts["unet"])


def test_a_write_changes_the_images(unet: Any) -> None:
    host = TorchHost.of(unet)
    sample, text = torch.randn(1, 4, 16, 16), torch.randn(1, 7, 64)
    with torch.no_grad():
        before = unet(sample, 3, text).sample
        host.write({name: tensor * 0 for name, tensor in host.read(names_of(host)).items()})
        assert not torch.equal(unet(sample, 3, text).sample, before)
        host.write(host.originals(names_of(host)), forget=names_of(host))
        assert torch.equal(unet(sample, 3, text).sample, before)


def test_reads_are_copies(unet: Any) -> None:
    host = TorchHost.of(unet)
    before = host.digests([KEYS])
    host.read([KEYS])[KEYS].zero_()
    host.originals([KEYS])[KEYS].zero_()
    assert host.digests([KEYS]) == before


def test_zero_and_minus_zero_are_different_values(unet: Any) -> None:
    host = TorchHost.of(unet)
    host.write({KEYS: torch.zeros(64, 64)})
    before = host.digests([KEYS])
    host.write({KEYS: -torch.zeros(64, 64)})
    assert host.digests([KEYS]) != before


def test_equal_values_keep_no_original(unet: Any) -> None:
    host = TorchHost.of(unet)
    host.write(host.read([KEYS]))
    assert host.kept() == frozenset()


def test_strided_and_inference_parameters(unet: Any) -> None:
    weight = attention(unet).to_k.weight
    expected = TorchHost.of(unet).digests([KEYS])
    weight.data = weight.data.t().contiguous().t()
    assert not weight.is_contiguous()
    with torch.inference_mode():
        attention(unet).to_v.weight = nn.Parameter(attention(unet).to_v.weight.clone(), requires_grad=False)
    host = TorchHost.of(unet)
    assert host.digests([KEYS]) == expected
    before = host.digests([KEYS, VALUES])
    host.write({name: tensor + 1 for name, tensor in host.read([KEYS, VALUES]).items()})
    host.write(host.originals([KEYS, VALUES]), forget=[KEYS, VALUES])
    assert host.digests([KEYS, VALUES]) == before


def test_a_second_host_knows_the_originals_of_the_first(unet: Any) -> None:
    pristine = TorchHost.of(unet).digests([KEYS])
    TorchHost.of(unet).write({KEYS: torch.ones(64, 64)})
    assert TorchHost({"unet": unet}, "again").original_digests([KEYS]) == pristine
    twin = copy.deepcopy(unet)
    host = TorchHost.of(twin)
    assert host.original_digests([KEYS]) == pristine
    host.write(host.originals([KEYS]), forget=[KEYS])
    assert TorchHost.of(unet).kept() == {KEYS}  # the copy's way back is not the model's
    assert not any("rasura" in key for key in unet.state_dict())


def test_originals_go_with_the_model() -> None:
    unet = tiny_components()["unet"]
    TorchHost.of(unet).write({KEYS: torch.ones(64, 64)})
    kept = weakref.ref(vars(unet)["_rasura_originals"][KEYS])
    assert kept() is not None
    del unet
    gc.collect()
    assert kept() is None


def test_the_identity_lasts_as_long_as_something_is_applied(unet: Any) -> None:
    host = TorchHost.of(unet)
    assert re.fullmatch("[0-9a-f]{32}", host.host_id)
    assert host.host_id == host.host_id != TorchHost.of(unet).host_id
    host.write({KEYS: torch.ones(64, 64)})
    assert TorchHost.of(unet).host_id == host.host_id
    host.write(host.originals([KEYS]), forget=[KEYS])
    assert TorchHost.of(unet).host_id != host.host_id


# All or nothing.


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (lambda t: t[1:], UnsupportedHostError),
        (lambda t: t.double(), UnsupportedHostError),
        (lambda t: t * float("nan"), NotFiniteError),
        (lambda t: t + float("inf"), NotFiniteError),
    ],
    ids=["shape", "dtype", "nan", "infinity"],
)
def test_one_bad_tensor_and_nothing_is_written(spoil: Callable[[Any], Any], error: type[Exception], unet: Any) -> None:
    host = TorchHost.of(unet)
    names = names_of(host)
    before = host.digests(host.parameters())
    tensors = {name: tensor + 1 for name, tensor in host.read(names).items()}
    tensors[names[-1]] = spoil(tensors[names[-1]])
    with pytest.raises(error):
        host.write(tensors)
    assert host.digests(host.parameters()) == before
    assert host.kept() == frozenset()


def test_a_write_that_fails_half_way_is_put_back(unet: Any) -> None:
    """The third of many tensors raises when it is copied, after two were written."""
    host = TorchHost.of(unet)
    names = names_of(host)
    host.write({names[0]: torch.zeros_like(host.read(names[:1])[names[0]])})
    before = host.digests(host.parameters())
    victim = dict(unet.named_parameters())[names[2].removeprefix("unet.")]
    alias = victim.data.view(-1)
    new = {name: tensor + 1 for name, tensor in host.read(names).items()}
    new[names[2]] = new[names[2]].as_subclass(_Poisoned)
    with pytest.raises(HostWriteError, match=r"sorry, no copy; nothing was changed"):
        host.write(new)
    assert host.digests(host.parameters()) == before
    assert host.kept() == {names[0]}
    assert alias.data_ptr() == victim.data_ptr()


class _Poisoned(torch.Tensor):
    """A tensor that torch can look at but not copy from."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.copy_:
            raise RuntimeError("sorry, no copy")
        return super().__torch_function__(func, types, args, kwargs)  # type: ignore[no-untyped-call]


def test_the_only_copy_of_an_original_is_never_forgotten(unet: Any) -> None:
    host = TorchHost.of(unet)
    with pytest.raises(HostWriteError, match="before its original is forgotten"):
        host.write({KEYS: torch.ones(64, 64)}, forget=[KEYS])
    host.write({KEYS: torch.ones(64, 64)})
    with pytest.raises(HostWriteError, match="before its original is forgotten"):
        host.write({}, forget=[KEYS])
    assert host.kept() == {KEYS}


def test_readers_never_see_half_a_write(unet: Any) -> None:
    host = TorchHost.of(unet)
    names = names_of(host)
    states = [{name: torch.full_like(t, value) for name, t in host.read(names).items()} for value in (1.0, 2.0)]
    host.write(states[0])
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            for state in states:
                TorchHost.of(unet).write(state)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(60):
            assert len({float(tensor.view(-1)[0]) for tensor in host.read(names).values()}) == 1
    finally:
        stop.set()
        writer.join()


# What is refused, each on the real thing.


def _offload_loaded(unet: Any) -> None:
    accelerate.cpu_offload(unet, execution_device=CPU)
    layer = attention(unet).to_k
    assert isinstance(layer._hf_hook, AlignDevicesHook)
    layer._hf_hook.pre_forward(layer)  # as in the middle of a forward: the weight is there, for a moment
    assert not layer.weight.is_meta


def _fuse(unet: Any) -> None:
    unet.fuse_qkv_projections()


def _adapter(unet: Any) -> None:
    unet.add_adapter(peft.LoraConfig(r=2, target_modules=["to_k"]))


def _merged_adapter(unet: Any) -> None:
    _adapter(unet)
    unet.fuse_lora()


def _tie(unet: Any) -> None:
    attention(unet).to_v.weight = attention(unet).to_k.weight


def _view(unet: Any) -> None:
    attention(unet).to_v.weight.data = attention(unet).to_k.weight.data


def _overlap(unet: Any) -> None:
    memory = torch.zeros(64 * 64 + 8)
    attention(unet).to_k.weight.data = memory[: 64 * 64].view(64, 64)
    attention(unet).to_v.weight.data = memory[8:].view(64, 64)


def _buffer(unet: Any) -> None:
    unet.register_buffer("spare", attention(unet).to_k.weight.data.view(-1)[-5:])


def _expand(unet: Any) -> None:
    attention(unet).to_k.weight.data = torch.zeros(1, 64).expand(64, 64)


def _float8(unet: Any) -> None:
    unet.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)


class Int4Parameter(nn.Parameter):
    """As quantisation libraries make them: a parameter of their own class whose numbers are codes."""


def _quantise(unet: Any) -> None:
    weight = attention(unet).to_k.weight
    attention(unet).to_k.weight = Int4Parameter(weight.data)


@pytest.mark.parametrize(
    ("spoil", "got", "hint"),
    [
        (_offload_loaded, "accelerate swaps", "remove_all_hooks"),
        (_fuse, "to_kv is a fused copy", "unfuse_qkv_projections"),
        (_adapter, "wrapped by a PEFT adapter", "unload_lora_weights"),
        (_merged_adapter, "merged PEFT adapter", "load the model afresh"),
        (_tie, "the memory of unet.mid_block", "untie"),
        (_view, "the memory of unet.mid_block", "untie"),
        (_overlap, "the memory of unet.mid_block", "untie"),
        (_buffer, "memory of its own", "untie"),
        (_expand, "elements share memory", "clone"),
        (_float8, "quantised one .Parameter of float8_e4m3fn", "before it is quantised"),
        (_quantise, "quantised one .Int4Parameter", "before it is quantised"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_write_that_would_be_lost_is_refused(spoil: Callable[[Any], None], got: str, hint: str, unet: Any) -> None:
    spoil(unet)
    host = TorchHost.of(unet)
    for act in (lambda: host.ensure_writable([KEYS]), lambda: host.write({KEYS: torch.ones(64, 64)})):
        with pytest.raises(UnsupportedHostError, match=got) as caught:
            act()  # type: ignore[no-untyped-call]
        assert hint in caught.value.hint
    assert host.kept() == frozenset()


@pytest.fixture
def mesh() -> Iterator[Any]:
    torch.distributed.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    torch.distributed.destroy_process_group()


def test_a_sharded_tensor_is_refused(unet: Any, mesh: Any) -> None:
    layer = attention(unet).to_k
    layer.weight = nn.Parameter(distribute_tensor(layer.weight.data, mesh, [Replicate()]))
    assert isinstance(layer.weight, DTensor)
    with pytest.raises(UnsupportedHostError, match="sharded over devices"):
        TorchHost.of(unet).ensure_writable([KEYS])


def test_an_adapter_does_not_hide_the_base(unet: Any) -> None:
    plain = TorchHost.of(unet)
    expected = plain.digests(plain.parameters())
    _adapter(unet)
    wrapped = TorchHost.of(unet)
    assert wrapped.digests(wrapped.parameters()) == expected
    elsewhere = ParamName(KEYS.replace("to_k", "to_v"))
    wrapped.ensure_writable([elsewhere])  # layers without an adapter are plain layers


# What looks like those and is fine.


def _unfuse(unet: Any) -> None:
    unet.fuse_qkv_projections()
    unet.unfuse_qkv_projections()


def _model_offload(unet: Any) -> None:
    accelerate.cpu_offload_with_hook(unet, CPU)


def _neighbours(unet: Any) -> None:
    """Two tensors side by side in one storage, as a loader may cut them from one mapped file."""
    memory = torch.zeros(2, 64, 64)
    attention(unet).to_k.weight.data, attention(unet).to_v.weight.data = memory[0], memory[1]


def _compile_in_place(unet: Any) -> None:
    unet.compile(backend="eager")


@pytest.mark.parametrize(
    "spoil", [_unfuse, _model_offload, _neighbours, _compile_in_place], ids=lambda value: value.__name__
)
def test_what_a_plain_write_does_reach_is_written(spoil: Callable[[Any], None], unet: Any) -> None:
    spoil(unet)
    host = TorchHost.of(unet)
    neighbour = host.digests([VALUES])
    sample, text = torch.randn(1, 4, 16, 16), torch.randn(1, 7, 64)
    with torch.no_grad():
        before = unet(sample, 3, text).sample
        host.write({KEYS: torch.randn(64, 64)})
        attention(unet).to_v.weight.data.copy_(torch.randn(64, 64)) if spoil is _neighbours else None
        assert spoil is _neighbours or host.digests([VALUES]) == neighbour
        assert not torch.equal(unet(sample, 3, text).sample, before)


def test_a_compiled_wrapper_has_the_models_own_names(unet: Any) -> None:
    plain = TorchHost.of(unet)
    compiled = TorchHost.of(torch.compile(unet, backend="eager"))
    assert compiled.digests(compiled.parameters()) == plain.digests(plain.parameters())


def test_hosts_of_other_things_are_refused() -> None:
    with pytest.raises(UnsupportedHostError, match="got Linear"):
        TorchHost.of(nn.Linear(2, 2))
    with pytest.raises(UnsupportedHostError, match="got vae"):
        TorchHost({"vae": nn.Linear(2, 2)}, "vae only")
    with pytest.raises(UnsupportedHostError, match=r"expected a parameter unet\.ghost"):
        TorchHost.of(tiny_components()["unet"]).read([ParamName("unet.ghost")])
    with pytest.raises(UnsupportedHostError, match=r"expected a parameter text_encoder\.ghost"):
        TorchHost.of(tiny_components()["unet"]).read([ParamName("text_encoder.ghost")])
