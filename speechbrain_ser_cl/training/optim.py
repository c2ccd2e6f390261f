"""Optimiser groups: a learning rate for each part of a model."""

from collections.abc import Mapping
from typing import Any

from torch import nn


def parameter_groups(
    modules: nn.Module, learning_rates: Mapping[str, float | Mapping[str, float]]
) -> list[dict[str, Any]]:
    """Assigns the trained parameters to optimiser groups with a learning rate each.

    A key is the beginning of a parameter's dotted name, such as ``backbone`` or
    ``backbone.layer_weights``; the longest matching key is used. Names are without
    DistributedDataParallel's ``module.``.

    The value of a key is a learning rate. For a part with ``stages``, such as
    :class:`~speechbrain_ser_cl.backbones.WeightedSSL`, it may be a mapping ``{"lr":
    1e-4, "layer_decay": 0.9}``: the highest layer has this learning rate, each lower
    stage the decay times that of the stage above, and parameters outside of stages the
    learning rate itself. Howard & Ruder, "Universal language model fine-tuning", ACL
    2018, section 3.2.

    Arguments
    ---------
    modules : torch.nn.Module
        Model.
    learning_rates : mapping of str to float or mapping
        Learning rate per key. A key whose parameters are all frozen makes no group.

    Returns
    -------
    list of dict
        Groups ``{"name", "params", "lr"}`` for a torch optimiser, in the order of the
        keys, with the stages of a key from the front end upwards.

    Raises
    ------
    ValueError
        If a trained parameter matches no key, a key matches no part of the model or has
        an invalid value, or nothing is trained.

    Example
    -------
    >>> model = nn.ModuleDict({"backbone": nn.Linear(2, 2), "head": nn.Linear(2, 1)})
    >>> groups = parameter_groups(model, {"backbone": 1e-4, "head": 1e-3})
    >>> [(group["name"], group["lr"], len(group["params"])) for group in groups]
    [('backbone', 0.0001, 2), ('head', 0.001, 2)]
    >>> model["backbone"].stages = [[model["backbone"]], [nn.Linear(2, 2)]]
    >>> rates = {"backbone": {"lr": 1e-4, "layer_decay": 0.5}, "head": 1e-3}
    >>> [(group["name"], group["lr"]) for group in parameter_groups(model, rates)]
    [('backbone stage 0', 5e-05), ('head', 0.001)]
    """
    params: dict[str, list[nn.Parameter]] = {key: [] for key in learning_rates}
    known = {_own_name(name): module for name, module in modules.named_modules()}
    names = known.keys() | {_own_name(name) for name, _ in modules.named_parameters()}
    unknown = [key for key in learning_rates if key not in names]
    if unknown:
        raise ValueError(
            f"learning_rates: {', '.join(unknown)} matches no part of the model; its "
            f"parts are {', '.join(name for name, _ in modules.named_children())} and "
            "what is in them."
        )
    for name, parameter in modules.named_parameters():
        if not parameter.requires_grad:
            continue
        parts = _own_name(name).split(".")
        prefixes = [".".join(parts[:n]) for n in range(len(parts), 0, -1)]
        key = next((prefix for prefix in prefixes if prefix in params), None)
        if key is None:
            raise ValueError(
                f"learning_rates: the trained parameter {'.'.join(parts)} fits none of "
                f"the keys {', '.join(learning_rates)}; add one, for example "
                f"{parts[0]}."
            )
        params[key].append(parameter)
    groups = []
    for key, rate in learning_rates.items():
        if isinstance(rate, Mapping):
            groups += _layer_groups(key, known.get(key), params[key], rate)
        else:
            groups.append({"name": key, "params": params[key], "lr": rate})
    groups = [group for group in groups if group["params"]]
    if not groups:
        raise ValueError("nothing to train: every parameter is frozen.")
    return groups


def _layer_groups(
    key: str,
    part: nn.Module | None,
    params: list[nn.Parameter],
    rate: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Groups a part's parameters: one group per stage, one for the rest."""
    stages = getattr(part, "stages", None)
    if set(rate) != {"lr", "layer_decay"} or not 0 < rate["layer_decay"] <= 1:
        raise ValueError(
            f"learning_rates: {key} must be a number, or lr and a layer_decay that is "
            f"above 0 and at most 1; found {dict(rate)}"
        )
    if stages is None:
        raise ValueError(
            f"learning_rates: {key} has no stages for a layer_decay; give a number, or "
            "name the encoder itself"
        )
    of_stage = {
        id(parameter): number
        for number, stage in enumerate(stages)
        for module in stage
        for parameter in module.parameters()
    }
    groups = [
        {
            "name": f"{key} stage {number}",
            "params": [p for p in params if of_stage.get(id(p)) == number],
            "lr": rate["lr"] * rate["layer_decay"] ** (len(stages) - 1 - number),
        }
        for number in range(len(stages))
    ]
    others = [p for p in params if id(p) not in of_stage]
    return [*groups, {"name": key, "params": others, "lr": rate["lr"]}]


def _own_name(name: str) -> str:
    """Removes DistributedDataParallel's prefix from a dotted name."""
    return ".".join(part for part in name.split(".") if part != "module")
