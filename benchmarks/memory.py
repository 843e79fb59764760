"""How much memory a call needs beyond what stood there before."""

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path

import torch

STATUS = Path("/proc/self/status")
MARKS = Path("/proc/self/clear_refs")  # writing 5 resets the highest mark of the process


def growth(function: Callable[[], object], device: torch.device) -> int | None:
    """Bytes by which memory grows while a function runs; on a processor None where the system does not tell."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # what is free counts as such
        MARKS.write_text("5")
    except OSError:
        function()
        return None
    before = kilobytes("VmRSS")
    function()
    return 1024 * (kilobytes("VmHWM") - before)


def kilobytes(name: str) -> int:
    return next(int(line.split()[1]) for line in STATUS.read_text().splitlines() if line.startswith(f"{name}:"))


def held(*things: torch.nn.Module | torch.optim.Optimizer) -> int:
    """Bytes of the weights of models and of the states of optimisers."""
    tensors = []
    for thing in things:
        if isinstance(thing, torch.nn.Module):
            tensors += [*thing.parameters(), *thing.buffers()]
        else:
            tensors += [value for state in thing.state.values() for value in state.values() if torch.is_tensor(value)]
    return sum(tensor.numel() * tensor.element_size() for tensor in {id(tensor): tensor for tensor in tensors}.values())
