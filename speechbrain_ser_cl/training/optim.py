"""Optimiser groups: a learning rate for each part of a model."""

from collections.abc import Mapping

from torch import nn


def parameter_groups(
    modules: nn.Module, learning_rates: Mapping[str, float]
) -> list[dict]:
    """Sorts the trained parameters into one optimiser group per learning rate key.

    A key is the beginning of a parameter's dotted name, such as ``backbone`` or
    ``backbone.layer_weights``; the longest key that fits a parameter decides. Names
    are those without the ``module.`` that DistributedDataParallel puts in.

    Arguments
    ---------
    modules : torch.nn.Module
        The model.
    learning_rates : mapping of str to float
        Learning rate by key. A key whose parameters are all frozen makes no group.

    Returns
    -------
    list of dict
        Groups ``{"name", "params", "lr"}`` for a torch optimiser, in the order of the
        keys.

    Raises
    ------
    ValueError
        If a trained parameter fits no key, a key names no part of the model, or
        nothing is trained.

    Example
    -------
    >>> model = nn.ModuleDict({"backbone": nn.Linear(2, 2), "head": nn.Linear(2, 1)})
    >>> groups = parameter_groups(model, {"backbone": 1e-4, "head": 1e-3})
    >>> [(group["name"], group["lr"], len(group["params"])) for group in groups]
    [('backbone', 0.0001, 2), ('head', 0.001, 2)]
    """
    params = {key: [] for key in learning_rates}
    known = {_own_name(name) for name, _ in modules.named_modules()}
    known |= {_own_name(name) for name, _ in modules.named_parameters()}
    unknown = [key for key in learning_rates if key not in known]
    if unknown:
        raise ValueError(
            f"learning_rates: {', '.join(unknown)} names no part of the model; its "
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
    groups = [
        {"name": key, "params": params[key], "lr": learning_rates[key]}
        for key in learning_rates
        if params[key]
    ]
    if not groups:
        raise ValueError("nothing to train: every parameter is frozen.")
    return groups


def _own_name(name: str) -> str:
    """A dotted name as it is without DistributedDataParallel."""
    return ".".join(part for part in name.split(".") if part != "module")
