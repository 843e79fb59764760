"""Batch norms that learn nothing become part of the weights before them, while an encoder runs.

Nothing is kept but which batch norm reads which convolution. Weights are folded anew in every run, with their
gradients, so that there is no copy that could be out of date; and only where they are smaller than what they are
applied to, for only there it pays.
"""

import weakref
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

PAIRS: weakref.WeakKeyDictionary[nn.Module, list[tuple[str, str]]] = weakref.WeakKeyDictionary()
"""Of each encoder that was run, by name, the convolutions whose output nothing but a batch norm reads, and that one."""


def folded_batch_norms(encoder: nn.Module, pictures: torch.Tensor) -> AbstractContextManager:
    """What to enter while an encoder runs on pictures [N, 3, H, W]; its results stay the same but for rounding."""
    modules = dict(encoder.named_modules())
    norms = [module for module in modules.values() if isinstance(module, nn.BatchNorm2d)]
    if torch.compiler.is_compiling() or pictures.is_meta or not norms or any(norm.training for norm in norms):
        return nullcontext()
    if encoder not in PAIRS:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return nullcontext()  # a run that other processes do not make may wait for them forever
        with torch.no_grad(), Finding() as found:
            encoder(pixel_values=pictures[:1])
        PAIRS[encoder] = found.pairs(modules)
    pairs = [(modules.get(conv), modules.get(norm)) for conv, norm in PAIRS[encoder]]
    return Folding([(conv, norm) for conv, norm in pairs if can_fold(conv, norm)])


@dataclass
class Convolved:
    """The output of a convolution, who reads it, and the parameters around it."""

    output: weakref.ref[torch.Tensor]
    weight: torch.Tensor
    norm_weight: torch.Tensor | None = None
    readers: int = 0


class Finding(TorchFunctionMode):
    """Finds the pairs of an encoder while it runs."""

    def __init__(self):
        super().__init__()
        self.convolved: list[Convolved] = []
        self.last: dict[int, Convolved] = {}  # by the id of its output

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        if not any(isinstance(part, torch.Tensor) for part in flat([result])):
            return result  # a size, a type: nothing was read
        for tensor in flat([*args, *kwargs.values()]):
            found = self.last.get(id(tensor))
            if found is not None and found.output() is tensor:
                found.readers += 1
                if function is F.batch_norm:
                    found.norm_weight = kwargs.get("weight")
        if function is F.conv2d:
            found = Convolved(weakref.ref(result), weight=args[1])
            self.convolved.append(found)
            self.last[id(result)] = found
        return result

    def pairs(self, modules: dict[str, nn.Module]) -> list[tuple[str, str]]:
        """The pairs among the modules of the encoder that has run, by name."""
        names = {id(module.weight): name for name, module in modules.items() if hasattr(module, "weight")}
        runs = [id(found.weight) for found in self.convolved]
        pairs = []
        for found in self.convolved:
            conv, norm = names.get(id(found.weight)), names.get(id(found.norm_weight))
            if found.readers == 1 and runs.count(id(found.weight)) == 1 and None not in (conv, norm):
                pairs.append((conv, norm))
        return pairs


class Folding(TorchFunctionMode):
    """Folds pairs: the convolution does the work of both, the batch norm hands on what it gets."""

    def __init__(self, pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]]):
        super().__init__()
        self.pairs = {id(conv.weight): (conv, norm) for conv, norm in pairs}
        self.normalised: dict[int, torch.Tensor] = {}  # outputs that no batch norm has handed on yet, by their id

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is F.conv2d and id(args[1]) in self.pairs and args[0].numel() > args[1].numel():
            states, _, _, *geometry = args
            weight, bias = fold(*self.pairs[id(args[1])])
            result = function(states, weight, bias, *geometry, **(kwargs or {}))
            self.normalised[id(result)] = result
            return result
        if function is F.batch_norm and id(args[0]) in self.normalised:
            return self.normalised.pop(id(args[0]))
        return function(*args, **(kwargs or {}))


def can_fold(conv: nn.Module | None, norm: nn.Module | None) -> bool:
    """Whether both are still what they were, and nobody listens in between."""
    as_made = type(conv) is nn.Conv2d and isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None
    if not as_made or conv.weight.device != norm.weight.device:
        return False
    listeners = (conv._forward_hooks, norm._forward_pre_hooks, norm._forward_hooks)
    return not any(listeners)


def fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weight and bias of a convolution that does what both do."""
    exact = torch.promote_types(conv.weight.dtype, torch.float32)
    scale = norm.weight.to(exact) * torch.rsqrt(norm.running_var.to(exact) + norm.eps)  # [out]
    mean = norm.running_mean if conv.bias is None else norm.running_mean - conv.bias
    bias = norm.bias - mean * scale
    return (conv.weight * scale[:, None, None, None]).to(conv.weight.dtype), bias.to(conv.weight.dtype)


def flat(values: list) -> list:
    """The values, and instead of a list or a tuple what is in it."""
    return [part for value in values for part in (value if isinstance(value, list | tuple) else [value])]
