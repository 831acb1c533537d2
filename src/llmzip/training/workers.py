"""Several processes that train one model together, as ``torchrun`` starts them; or just this one.

Each process takes its share of the lanes, DistributedDataParallel averages the gradients, and process 0 prepares,
validates and writes. What to do next depends on clocks and signals, so it is agreed on at every step.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from llmzip.errors import HardwareError

State = list[tuple[Tensor, ...]]  # of each layer, each tensor ``[lanes, ...]``
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Workers:
    """The rank of this process among `count`, and its device."""

    device: torch.device = CPU
    rank: int = 0
    count: int = 1

    @classmethod
    def join(cls, device: str) -> Workers:
        """Join the processes that torchrun has started, if it has; `device` is auto, cpu or cuda."""
        kind = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        if kind == "cuda" and not torch.cuda.is_available():
            raise HardwareError("torch finds no CUDA device (use --device cpu)")
        if "TORCHELASTIC_RUN_ID" not in os.environ:
            return cls(torch.device(kind))
        local = int(os.environ["LOCAL_RANK"])
        if kind == "cuda":
            torch.cuda.set_device(local)
        dist.init_process_group("nccl" if kind == "cuda" else "gloo")
        place = torch.device("cuda", local) if kind == "cuda" else CPU
        return cls(place, dist.get_rank(), dist.get_world_size())

    @property
    def leads(self) -> bool:
        """Return whether this process prepares, validates and writes."""
        return self.rank == 0

    def leave(self) -> None:
        """Leave the group."""
        if self.count > 1:
            dist.destroy_process_group()

    def wait(self) -> None:
        """Wait until all are here."""
        if self.count > 1:
            dist.barrier()

    def wrap(self, module: nn.Module) -> nn.Module:
        """Return a module whose gradients are the means over all processes."""
        return DistributedDataParallel(module) if self.count > 1 else module

    def share(self, lanes: int) -> slice:
        """Return this process's lanes; `lanes` is a multiple of `count`."""
        each = lanes // self.count
        return slice(self.rank * each, (self.rank + 1) * each)

    def agree(self, *values: float) -> list[float]:
        """Return the largest of every value over all processes."""
        if self.count == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return tensor.tolist()

    def total(self, value: float) -> float:
        """Return the sum of a value over all processes."""
        if self.count == 1:
            return value
        tensor = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor)
        return float(tensor)

    def gather(self, state: State) -> State:
        """Return the states of all lanes, on the CPU."""
        state = [tuple(t.cpu() for t in layer) for layer in state]
        if self.count == 1:
            return state
        parts: list[State] = [[] for _ in range(self.count)]
        dist.all_gather_object(parts, state)
        layers = zip(*parts, strict=True)
        return [tuple(torch.cat(tensors) for tensors in zip(*layer, strict=True)) for layer in layers]
