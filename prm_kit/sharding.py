"""A model whose weights, gradients and optimiser states are spread over the processes of a run: FSDP2.

Every layer is a unit, so are the rest of the trunk and the head; each process holds one slice of every weight. Only the
mechanism is here: what one process computes, several compute.

Run by us on CPUs (gloo, up to four processes). The same calls drive CUDA (nccl), which we have not run.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from prm_kit.distributed import World


class Shards:
    """The sharded parts of a model, and when they talk.

    Args:
        trunk: The decoder, or a whole model that is computed in one call; changed in place.
        head: What stands on the decoder, or another whole model; changed in place. None: the whole model was given.
        world: The processes. One alone: nothing is changed and nothing is ever said.
        device: Where the weights go.
        bfloat16: Layers' weights travel as bfloat16, which is what autocast computes with; gradients are summed in
            float32, and the weights that are trained stay float32.
        thrifty: Give up the weights and gradients of the others after every layer: least memory. Otherwise they are
            kept until an update is over, however many micro-batches it has: least traffic.
    """

    def __init__(
        self,
        trunk: nn.Module,
        head: nn.Module | None,
        world: World,
        device: torch.device,
        *,
        bfloat16: bool,
        thrifty: bool,
    ) -> None:
        self.world, self.thrifty = world, thrifty
        self._roots: list[FSDPModule] = []
        if world.size == 1:
            return
        mesh = init_device_mesh(device.type, (world.size,))
        policy: dict[str, Any] = {}
        if bfloat16:
            policy["mp_policy"] = MixedPrecisionPolicy(
                param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False
            )
        for root in (trunk,) if head is None else (trunk, head):
            for layer in _layers(root):
                fully_shard(layer, mesh=mesh, reshard_after_forward=thrifty, **policy)
            sharded = fully_shard(root, mesh=mesh, reshard_after_forward=thrifty)
            assert isinstance(sharded, FSDPModule)
            self._roots.append(sharded)

    def expect(self, last: bool) -> None:
        """Say before a micro-batch whether it is the last of its update, after which gradients are summed."""
        for root in self._roots:
            root.set_requires_gradient_sync(last or self.thrifty)
            root.set_reshard_after_backward(last or self.thrifty)

    @property
    def works_alone(self) -> bool:
        """Whether a process that has fetched all weights needs none of the others until gradients are summed.

        So it does, and can start over, unless weights are given up after every layer (or torch is older than 2.13).
        """
        return not self.thrifty and all(hasattr(root, "reset_iter_state") for root in self._roots)

    def hold(self) -> None:
        """Fetch the others' weights, all at once; all processes together."""
        for module in self._modules():
            module.unshard()

    def start_over(self) -> None:
        """Forget passes that failed half-way. Gradients of those that did not are still there, to be summed."""
        for root in self._roots:
            root.reset_iter_state()

    def release(self) -> None:
        """Give up what is held of the others' weights, after passes that had no backward."""
        for module in self._modules():
            module.reshard()

    def _modules(self) -> Iterator[FSDPModule]:
        for root in self._roots:
            for module in root.modules():  # type: ignore[attr-defined]
                if isinstance(module, FSDPModule):
                    yield module

    @property
    def gradient_share(self) -> float:
        """Factor on a loss so that gradients come out as sums over the processes: FSDP takes their mean."""
        return float(self.world.size)


def whole(value: Tensor) -> Tensor:
    """A tensor as one piece; all processes must ask for it together."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def whole_weights(model: nn.Module, world: World) -> dict[str, Tensor]:
    """The trained parameters by name, in one piece on the CPU of the first process; nothing on the others."""
    found: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            tensor = whole(parameter.detach())
            if world.is_first:
                found[name] = tensor.cpu()
    return found


def _layers(trunk: nn.Module) -> Iterator[nn.Module]:
    for child in trunk.children():
        if isinstance(child, nn.ModuleList):
            yield from child
        else:
            yield from _layers(child)
