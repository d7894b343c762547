"""Bytes of tensors that are alive at once: counted, not measured, so that they are the same on every run.

A storage is counted from the operation that returns it until nobody holds it any more, in forward and backward passes
alike. What a kernel takes and gives back while it runs is not seen.
"""

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveMemory(TorchDispatchMode):
    """Counts inside a `with`; `peak_bytes` is the most that was alive, without what was given at the start."""

    def __init__(self, given: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.peak_bytes = self._bytes = 0
        self._counted = weakref.WeakSet(tensor.untyped_storage() for tensor in given)

    def __torch_dispatch__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 (whatever the operation returns)
        result = function(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, torch.Tensor):
                self._count(value.untyped_storage())
        self.peak_bytes = max(self.peak_bytes, self._bytes)
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage not in self._counted:
            self._counted.add(storage)
            self._bytes += storage.nbytes()
            weakref.finalize(storage, self._forget, storage.nbytes())

    def _forget(self, num_bytes: int) -> None:
        self._bytes -= num_bytes
