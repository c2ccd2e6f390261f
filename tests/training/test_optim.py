"""A learning rate for each part of a model."""

import pytest
import torch
from torch import nn

from speechbrain_ser_cl.backbones import WeightedSSL
from speechbrain_ser_cl.training import parameter_groups


class Wrapper(nn.Module):
    """Adds ``module.`` to names, like DistributedDataParallel."""

    def __init__(self, module):
        super().__init__()
        self.module = module


def model():
    backbone = nn.Module()
    backbone.layer_weights = nn.Parameter(torch.zeros(3))
    backbone.layers = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    return nn.ModuleDict(
        {"backbone": backbone, "pooling": nn.Identity(), "head": nn.Linear(2, 1)}
    )


def names(groups, modules):
    of = {id(parameter): name for name, parameter in modules.named_parameters()}
    return {group["name"]: [of[id(p)] for p in group["params"]] for group in groups}


def test_the_longest_key_that_fits_decides():
    modules = model()
    rates = {
        "head": 1.0,
        "backbone": 0.1,
        "backbone.layers.1": 0.01,
        "backbone.layer_weights": 0.5,
    }
    groups = parameter_groups(modules, rates)
    assert names(groups, modules) == {
        "head": ["head.weight", "head.bias"],
        "backbone": ["backbone.layers.0.weight", "backbone.layers.0.bias"],
        "backbone.layers.1": ["backbone.layers.1.weight", "backbone.layers.1.bias"],
        "backbone.layer_weights": ["backbone.layer_weights"],
    }
    assert {group["name"]: group["lr"] for group in groups} == rates
    # "backbone.layer" is not the beginning of a complete name.
    with pytest.raises(ValueError, match=r"backbone\.layer matches no part"):
        parameter_groups(modules, rates | {"backbone.layer": 1.0})


def test_a_wrapped_module_has_its_own_names():
    modules = model()
    rates = {"head": 1.0, "backbone": 0.1, "backbone.layers.1": 0.01}
    plain = names(parameter_groups(modules, rates), modules)
    for name in ("backbone", "head"):
        modules[name] = Wrapper(modules[name])
    wrapped = names(parameter_groups(modules, rates), modules)
    unwrapped = {
        key: [name.replace(".module", "") for name in value]
        for key, value in wrapped.items()
    }
    assert unwrapped == plain


def test_each_layer_below_another_learns_less():
    modules = model()
    modules["backbone"].stages = [[layer] for layer in modules["backbone"].layers]
    rates = {
        "backbone": {"lr": 0.1, "layer_decay": 0.5},
        "backbone.layer_weights": 1.0,
        "head": 2.0,
    }
    for wrapped in (False, True):
        if wrapped:
            modules["backbone"] = Wrapper(modules["backbone"])
        groups = parameter_groups(modules, rates)
        in_group = {
            key: [name.replace(".module", "") for name in value]
            for key, value in names(groups, modules).items()
        }
        assert in_group == {
            "backbone stage 0": ["backbone.layers.0.weight", "backbone.layers.0.bias"],
            "backbone stage 1": ["backbone.layers.1.weight", "backbone.layers.1.bias"],
            "backbone.layer_weights": ["backbone.layer_weights"],
            "head": ["head.weight", "head.bias"],
        }
        assert [group["lr"] for group in groups] == [0.05, 0.1, 1.0, 2.0]
    del rates["backbone.layer_weights"]
    groups = parameter_groups(modules, rates)
    assert [group["lr"] for group in groups] == [0.05, 0.1, 0.1, 2.0]
    assert groups[2]["name"] == "backbone"


def test_layer_decay_of_an_encoder():
    """Frozen layers have no group, and do not change the rate of layers above."""
    config = {
        "model_type": "whisper",
        "d_model": 16,
        "encoder_layers": 4,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
    }
    rates = {"backbone": {"lr": 1.0, "layer_decay": 0.5}}
    for options in ({"freeze": 2}, {"freeze": 2, "lora": {"r": 2}}):
        backbone = WeightedSSL(config, **options)
        modules = nn.ModuleDict({"backbone": backbone})
        groups = parameter_groups(modules, rates)
        assert [(group["name"], group["lr"]) for group in groups] == [
            ("backbone stage 3", 0.5),
            ("backbone stage 4", 1.0),
            ("backbone", 1.0),
        ]
        expected = {name for name, p in modules.named_parameters() if p.requires_grad}
        assert set(sum(names(groups, modules).values(), [])) == expected
        assert names(groups, modules)["backbone"] == ["backbone.layer_weights"]


@pytest.mark.parametrize(
    ("rate", "message"),
    [
        ({"lr": 0.1}, "backbone must be a number, or lr and a layer_decay"),
        ({"lr": 0.1, "layer_decay": 0.0}, "above 0 and at most 1"),
        ({"lr": 0.1, "layer_decay": 1.5}, "above 0 and at most 1"),
        ({"lr": 0.1, "decay": 0.5}, "found .*'decay'"),
        ({"lr": 0.1, "layer_decay": 0.5}, "backbone has no stages"),
    ],
)
def test_a_wrong_layer_decay_is_an_error(rate, message):
    with pytest.raises(ValueError, match=message):
        parameter_groups(model(), {"backbone": rate, "head": 1.0})


def test_what_is_frozen_is_in_no_group():
    modules = model()
    modules["backbone"].layers.requires_grad_(False)
    rates = {"backbone": 0.1, "backbone.layers": 0.01, "head": 1.0, "pooling": 1.0}
    groups = parameter_groups(modules, rates)
    assert names(groups, modules) == {
        "backbone": ["backbone.layer_weights"],
        "head": ["head.weight", "head.bias"],
    }


def test_a_part_without_a_rate_is_an_error():
    with pytest.raises(ValueError, match=r"head\.weight.*backbone.*for example head"):
        parameter_groups(model(), {"backbone": 0.1})


def test_a_rate_for_no_part_is_an_error():
    # Otherwise a typo would train the layer weights at the backbone's rate.
    rates = {"backbone": 0.1, "backbone.layer_weihgts": 0.5, "head": 1.0}
    with pytest.raises(ValueError, match=r"layer_weihgts.*backbone, pooling, head"):
        parameter_groups(model(), rates)


def test_nothing_to_train_is_an_error():
    modules = model().requires_grad_(False)
    with pytest.raises(ValueError, match="nothing to train"):
        parameter_groups(modules, {"backbone": 0.1, "head": 1.0})


def test_an_optimiser_takes_the_groups():
    modules = model()
    groups = parameter_groups(modules, {"backbone": 0.0, "head": 1.0})
    optimizer = torch.optim.SGD(groups)
    before = {name: p.clone() for name, p in modules.named_parameters()}
    for parameter in modules.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for name, parameter in modules.named_parameters():
        step = 1.0 if name.startswith("head") else 0.0
        torch.testing.assert_close(parameter, before[name] - step)
