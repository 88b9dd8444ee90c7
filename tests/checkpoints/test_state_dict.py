"""Foreign weights: found under their wrappings, recognised by their names, loaded whole or refused by name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from tests.foreign import parallel, weights
from zipbatch.checkpoints.state_dict import find_state, head_classes, load_foreign, sniff
from zipbatch.errors import UsageError
from zipbatch.victims import CIFAR_ARCHITECTURES, build_victim

WHERE = Path("ckpt.pth")
STATE = {"a.weight": torch.ones(2), "b": torch.zeros(1)}


@pytest.mark.parametrize(
    ("tree", "nested", "stripped"),
    [
        (STATE, None, ()),
        (parallel(STATE), None, ("module.",)),
        (parallel(parallel(STATE)), None, ("module.", "module.")),
        ({"state_dict": parallel(STATE), "epoch": 3, "optimizer": {"lr": 0.1}}, "state_dict", ("module.",)),
        ({"net": STATE, "acc": 93.1, "epoch": 199}, "net", ()),
        ({"model": {f"_orig_mod.module.{k}": v for k, v in STATE.items()}}, "model", ("_orig_mod.", "module.")),
    ],
)
def test_wrappings(tree: Any, nested: str | None, stripped: tuple[str, ...]):
    found = find_state(tree, where=WHERE)
    assert (found.nested, found.stripped) == (nested, stripped)
    assert {key: value.tolist() for key, value in found.state.items()} == {k: v.tolist() for k, v in STATE.items()}


def test_a_prefix_of_some_names_is_a_name():
    tree = {"module.a": torch.ones(1), "b": torch.ones(1)}
    assert find_state(tree, where=WHERE).state.keys() == tree.keys()


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({}, "no state dict"),
        ([1, 2], "no state dict (it has: list)"),
        (torch.ones(3), "no state dict (it has: Tensor)"),
        ({"epoch": 3, "weights_ema": STATE}, "no state dict (it has: epoch, weights_ema)"),
        ({"model": STATE, "net": STATE}, "state dicts under model and net"),
        ({"a": torch.eye(2).to_sparse()}, "no state dict"),
    ],
)
def test_no_weights_or_two(tree: Any, words: str):
    with pytest.raises(UsageError, match=re.escape(words)):
        find_state(tree, where=WHERE)


@pytest.mark.parametrize("arch", sorted(CIFAR_ARCHITECTURES))
def test_architectures_are_told_by_their_names(arch: str):
    with torch.device("meta"):
        state = build_victim(arch, num_classes=20).network.state_dict()
    assert sniff(state, where=WHERE) == arch
    assert head_classes(arch, state, where=WHERE) == 20


@pytest.mark.parametrize("name", ["resnet18", "vgg11_bn", "squeezenet1_1", "mobilenet_v3_small", "vit_b_16"])
def test_heads_of_torchvision(name: str):
    with torch.device("meta"):
        state = build_victim(f"torchvision:{name}", num_classes=43).network.state_dict()
    assert head_classes(f"torchvision:{name}", state, where=WHERE) == 43


def test_names_that_do_not_fit_are_counted_and_the_first_are_told():
    with torch.device("meta"):
        state = build_victim("resnet18", num_classes=10).network.state_dict()
    gone = [key for key in state if key.startswith("layer3.1.")]
    strangers = [f"extra.{i}" for i in range(9)]
    changed = {key: value for key, value in state.items() if key not in gone} | dict.fromkeys(strangers, torch.ones(1))
    with pytest.raises(UsageError) as caught:
        sniff(changed, where=WHERE)
    decisive = sorted(key for key in gone if not key.endswith("num_batches_tracked"))
    few = f"{len(decisive)} missing: {', '.join(decisive[:5])} and {len(decisive) - 5} more"
    strange = "9 unexpected: extra.0, extra.1, extra.2, extra.3, extra.4 and 4 more"
    assert f"closest to resnet18, but has {few}; {strange}" in str(caught.value)
    with pytest.raises(UsageError) as caught:
        load_foreign(build_victim("resnet18", num_classes=10), changed, arch="resnet18", where=WHERE)
    assert f"ckpt.pth: does not fit resnet18: {few}; {strange}" in str(caught.value)


def test_shapes_that_do_not_fit_are_told():
    state = weights("resnet20", 3) | {"layer1.0.bn1.bias": torch.zeros(17)}
    with pytest.raises(UsageError, match=r"1 of another shape: layer1.0.bn1.bias is \(17,\), it must be \(16,\)"):
        load_foreign(build_victim("resnet20", num_classes=3), state, arch="resnet20", where=WHERE)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"conv1.weight": torch.ones(64, 3, 7, 7), "fc.weight": torch.ones(9, 512)}, "‹arch='torchvision:resnet18'›"),
        ({"encoder.0.weight": torch.ones(1), "encoder.0.bias": torch.ones(1)}, "encoder.0.weight, encoder.0.bias, …"),
    ],
)
def test_strangers_are_told_what_to_do(state: dict[str, torch.Tensor], words: str):
    with pytest.raises(UsageError, match=re.escape(words)):
        sniff(state, where=WHERE)


def test_a_state_without_its_head():
    state = weights("resnet20", 3)
    del state["linear.weight"], state["linear.bias"]
    with pytest.raises(UsageError, match=r"lacks the head of resnet20 \(linear.weight, linear.bias\)"):
        head_classes("resnet20", state, where=WHERE)


def test_one_architecture_serves_both_poolings():
    """At 32 px BackdoorBox's avg_pool2d(4) sees the whole last map, which is what ZIP's adaptive pool averages at any
    size."""
    network = build_victim("resnet18", num_classes=20).network.eval()
    network.load_state_dict(weights("resnet18", 20))
    maps: list[torch.Tensor] = []
    network.get_submodule("layer4").register_forward_hook(lambda _module, _inputs, output: maps.append(output))
    with torch.inference_mode():
        for size in (32, 64):
            scores = network(torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(size)))
            pooled = F.adaptive_avg_pool2d(maps[-1], 1).flatten(1)
            linear = network.get_submodule("linear")
            assert torch.allclose(scores, linear(pooled), rtol=1e-5)
        assert torch.allclose(F.avg_pool2d(maps[0], 4).flatten(1), F.adaptive_avg_pool2d(maps[0], 1).flatten(1))
    assert [tuple(each.shape[-2:]) for each in maps] == [(4, 4), (8, 8)]
