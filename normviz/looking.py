"""Looking at a module changes nothing: it runs as it is, and afterwards is what it was."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

import torch
from torch import nn

_ONE_AT_A_TIME = RLock()  # two threads would put each other's copies back


@contextmanager
def untouched(module: nn.Module) -> Iterator[None]:
    """Within a with block, a module may be run and changed; afterwards it is what it was.

    That holds bit for bit, after an error too, for parameters, buffers, modes, hooks and all other
    attributes (numbers, tensors, dicts, lists and sets), of its submodules as well, and for torch's
    random state. Meanwhile the module has
    copies of its tensors, so that what autograd keeps of them for a backward pass stays valid.

    >>> bn = nn.BatchNorm1d(2)
    >>> with untouched(bn):
    ...     _ = bn(torch.randn(3, 2))
    >>> int(bn.num_batches_tracked)
    0
    """
    with _ONE_AT_A_TIME:
        states, copies = [], {}
        for part in module.modules():
            state = dict(vars(part))
            # Whoever holds one of these dictionaries, as the handle of a hook does, has to find it.
            inner = [(held, held.copy()) for held in state.values() if _is_container(held)]
            states.append((part, state, inner))
            for name, held in state.items():
                if isinstance(held, torch.Tensor):
                    vars(part)[name] = _copy_of(held, copies)
            for kind in ("_parameters", "_buffers"):
                own = {name: _copy_of(tensor, copies) for name, tensor in state[kind].items()}
                vars(part)[kind] = own
        devices = {t.device.index for t in copies.values() if t is not None and t.is_cuda}
        try:
            with torch.random.fork_rng(devices=devices):
                yield
        finally:
            for part, state, inner in states:
                vars(part).clear()
                vars(part).update(state)
                for held, content in inner:
                    held.clear()
                    held.extend(content) if isinstance(held, list) else held.update(content)


def twin_of(module: nn.Module) -> nn.Module:
    """A module of the same classes with copies of all tensors, also where ``copy`` refuses it."""
    copies = {}

    def twin(part: nn.Module) -> nn.Module:
        made = object.__new__(type(part))
        vars(made).update(
            {k: held.copy() if _is_container(held) else held for k, held in vars(part).items()}
        )
        for kind in ("_parameters", "_buffers"):
            for name, tensor in vars(part)[kind].items():
                vars(made)[kind][name] = _copy_of(tensor, copies)
        for name, inner in part._modules.items():
            made._modules[name] = None if inner is None else twin(inner)
        return made

    return twin(module)


def _is_container(held) -> bool:
    return isinstance(held, dict | list | set) and hasattr(held, "copy")


def _copy_of(tensor: torch.Tensor | None, copies: dict) -> torch.Tensor | None:
    """A copy of a tensor, one for all places where it stands."""
    if tensor is not None and id(tensor) not in copies:
        made = tensor.detach().clone()
        if isinstance(tensor, nn.Parameter):
            made = nn.Parameter(made, requires_grad=tensor.requires_grad)
        copies[id(tensor)] = made
    return None if tensor is None else copies[id(tensor)]
