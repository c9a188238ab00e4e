"""The few calls of NVIDIA's driver that a session needs, through ctypes: no CUDA package on the board.

Names and numbers: CUDA driver API reference.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.core.errors import MissingError, ResourceError

_INTEGRATED = 18
_MAPPED = 0x02
_CAPTURE_THREAD_LOCAL = 1
_OUT_OF_MEMORY = 2


class Memory:
    """One tensor's place: `host` as an array, and the address where the GPU sees it.

    On a Jetson both are the same memory; elsewhere `host` is pinned and copied to and fro.
    """

    def __init__(self, host: NDArray[Any], device: int, *, shared: bool) -> None:
        self.host, self.device, self.shared = host, device, shared


class Cuda:
    """The first GPU, its primary context (which TensorRT uses, too) and one stream."""

    def __init__(self, load: Callable[[str], Any] = ctypes.CDLL) -> None:
        try:
            self._lib = load("libcuda.so.1")
        except OSError:
            raise MissingError(
                "no NVIDIA driver: libcuda.so.1 is not there", hint="Use another variant here."
            ) from None
        self._call("cuInit", 0)
        self._context, self.stream_handle = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), 0)
        self.use()
        integrated = ctypes.c_int()
        self._call("cuDeviceGetAttribute", ctypes.byref(integrated), _INTEGRATED, 0)
        self.shared = bool(integrated.value)
        self._call("cuStreamCreate", ctypes.byref(self.stream_handle), 1)
        self._hosts: list[ctypes.c_void_p] = []
        self._devices: list[ctypes.c_uint64] = []
        self._graphs: list[ctypes.c_void_p] = []

    def _call(self, name: str, *words: Any) -> None:
        """Call the driver.

        Raises:
            ResourceError: It refuses; for lack of memory that is said.
        """
        if code := getattr(self._lib, name)(*words):
            if code == _OUT_OF_MEMORY:
                raise ResourceError("the GPU has no memory left", hint="Free memory, or use a smaller model.")
            raise ResourceError(
                f"{name} failed with CUDA error {code}", hint="See the board's system log (dmesg)."
            )

    def use(self) -> None:
        """Make the context this thread's own."""
        self._call("cuCtxSetCurrent", self._context)

    @property
    def stream(self) -> int:
        """The stream's handle as a number, as TensorRT takes it."""
        return int(self.stream_handle.value or 0)

    def memory(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Memory:
        """Return memory for one tensor, zeroed."""
        size = max(int(np.prod(shape)) * dtype.itemsize, 1)
        raw = ctypes.c_void_p()
        self._call("cuMemHostAlloc", ctypes.byref(raw), ctypes.c_size_t(size), _MAPPED if self.shared else 0)
        self._hosts.append(raw)
        assert raw.value
        view = (ctypes.c_char * size).from_address(raw.value)
        host = np.frombuffer(memoryview(view), dtype, count=int(np.prod(shape))).reshape(shape)
        host[...] = 0
        device = ctypes.c_uint64()
        if self.shared:
            self._call("cuMemHostGetDevicePointer_v2", ctypes.byref(device), raw, 0)
        else:
            self._call("cuMemAlloc_v2", ctypes.byref(device), ctypes.c_size_t(size))
            self._devices.append(device)
        return Memory(host, int(device.value), shared=self.shared)

    def upload(self, one: Memory) -> None:
        """Copy a tensor to the GPU where that is another place."""
        if not one.shared:
            self._call("cuMemcpyHtoDAsync_v2", ctypes.c_uint64(one.device), ctypes.c_void_p(one.host.ctypes.data), ctypes.c_size_t(one.host.nbytes), self.stream_handle)  # fmt: skip

    def download(self, one: Memory) -> None:
        """Copy a tensor back where that is another place."""
        if not one.shared:
            self._call("cuMemcpyDtoHAsync_v2", ctypes.c_void_p(one.host.ctypes.data), ctypes.c_uint64(one.device), ctypes.c_size_t(one.host.nbytes), self.stream_handle)  # fmt: skip

    def wait(self) -> None:
        """Wait until the stream is done."""
        self._call("cuStreamSynchronize", self.stream_handle)

    def captured(self, work: Callable[[], bool]) -> ctypes.c_void_p | None:
        """Return a CUDA graph of what `work` puts on the stream, None where that cannot be captured."""
        graph, made = ctypes.c_void_p(), ctypes.c_void_p()
        try:
            self._call("cuStreamBeginCapture_v2", self.stream_handle, _CAPTURE_THREAD_LOCAL)
            done = work()
            self._call("cuStreamEndCapture", self.stream_handle, ctypes.byref(graph))
            if not done:
                return None
            self._call("cuGraphInstantiateWithFlags", ctypes.byref(made), graph, ctypes.c_uint64(0))
        except ResourceError:
            return None
        self._graphs.append(made)
        return made

    def launch(self, graph: ctypes.c_void_p) -> None:
        """Put a captured graph on the stream."""
        self._call("cuGraphLaunch", graph, self.stream_handle)

    def close(self) -> None:
        """Free everything; the arrays of `memory` are gone then."""
        for graph in self._graphs:
            self._call("cuGraphExecDestroy", graph)
        for device in self._devices:
            self._call("cuMemFree_v2", device)
        for host in self._hosts:
            self._call("cuMemFreeHost", host)
        self._call("cuStreamDestroy_v2", self.stream_handle)
        self._call("cuDevicePrimaryCtxRelease_v2", 0)
        self._graphs, self._devices, self._hosts = [], [], []
