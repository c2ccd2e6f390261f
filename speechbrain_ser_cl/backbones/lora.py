"""LoRA: trained low-rank updates of frozen linear layers, by peft."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

# The layers that Hu et al. update after a comparison (section 7.1).
DEFAULT_TARGETS = ("q_proj", "v_proj")


def add_lora(
    model: nn.Module, parts: Iterable[nn.Module], options: Mapping[str, Any]
) -> None:
    r"""Adds a trained low-rank update to linear layers, in place.

    .. math::
        W' = W + \frac{\alpha}{r} B A

    with W frozen, A (r, inputs) random and B (outputs, r) zero, so that the output is
    initially unchanged. Hu et al., "LoRA", arXiv:2106.09685, section 4.1.

    Arguments
    ---------
    model : torch.nn.Module
        Model, which becomes frozen.
    parts : iterable of torch.nn.Module
        Modules of the model whose layers get updates.
    options : mapping
        Keyword arguments of ``peft.LoraConfig``: ``r`` (8), ``lora_alpha`` (8),
        ``lora_dropout`` (0) and others. ``target_modules`` are the last parts of the
        linear layers' names; default: q_proj and v_proj.

    Raises
    ------
    ImportError
        If peft is not installed.
    ValueError
        If peft has no such option, or the modules no such layer.

    Example
    -------
    >>> model = nn.ModuleDict({"q_proj": nn.Linear(4, 4), "k_proj": nn.Linear(4, 4)})
    >>> add_lora(model, [model], {"r": 2, "target_modules": ["q_proj"]})
    >>> [name for name, p in model.named_parameters() if p.requires_grad]
    ['q_proj.lora_A.default.weight', 'q_proj.lora_B.default.weight']
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ImportError(
            "lora needs peft, which is not installed; "
            'install the extra: pip install "speechbrain_ser_cl[peft]"'
        ) from error
    known = {field.name for field in dataclasses.fields(LoraConfig)}
    unknown = sorted(set(options) - known)
    if unknown:
        raise ValueError(
            f"lora: peft.LoraConfig has no option {', '.join(unknown)}; the usual ones "
            "are r, lora_alpha, lora_dropout and target_modules"
        )
    options = dict(options)
    targets = options.pop("target_modules", None) or DEFAULT_TARGETS
    targets = {targets} if isinstance(targets, str) else set(targets)
    inside = {id(module) for part in parts for module in part.modules()}
    linear = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and id(module) in inside
    ]
    last = {name: name.rpartition(".")[2] for name in linear}
    missing = targets - set(last.values())
    if missing:
        raise ValueError(
            f"lora: no linear layer to be trained is called "
            f"{', '.join(sorted(missing))}; there are "
            + (", ".join(sorted(set(last.values()))) or "none")
        )
    chosen = [name for name in linear if last[name] in targets]
    inject_adapter_in_model(LoraConfig(target_modules=chosen, **options), model)


def merge_lora(model: nn.Module) -> None:
    """Adds the updates to the weights and removes the update layers.

    Arguments
    ---------
    model : torch.nn.Module
        Model with updates from :func:`add_lora`; without updates it is not changed.

    Example
    -------
    >>> model = nn.ModuleDict({"q_proj": nn.Linear(4, 4)})
    >>> add_lora(model, [model], {"target_modules": ["q_proj"]})
    >>> merge_lora(model)
    >>> list(model.state_dict())
    ['q_proj.weight', 'q_proj.bias']
    """
    if not hasattr(model, "peft_config"):
        return
    from peft.tuners.lora import LoraLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge()
            model.set_submodule(name, module.get_base_layer())
    del model.peft_config
