"""Makes a Python process of this machine one on a board with an Orin: its driver lies in plain memory."""

import ctypes

_Real = ctypes.CDLL


class CDLL(_Real):
    def __new__(cls, name=None, *_, **__):
        if name != "libcuda.so.1":
            return object.__new__(cls)
        import board

        return board.DRIVER


ctypes.CDLL = CDLL
