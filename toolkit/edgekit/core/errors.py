"""Planned errors, each with the exit code a shell sees.

EdgekitError (1)
├── RecipeError (2)        something given is wrong: usage, recipe, model, data, output path
├── GateError (3)          a gate failed: accuracy, latency, size, memory
├── ContractError (4)      parity, precision share, placement or fingerprint was broken
├── DeviceError (5)        a device cannot be reached or was lost
│   └── LinkError          the line to it was cut or is slow: trying again may help
├── VerificationError (6)  a bundle or signature failed verification
├── MissingError (7)       an extra, tool or driver is missing
└── ResourceError (8)      this machine cannot do it now: no space, no permission, locked
"""

from __future__ import annotations


class EdgekitError(Exception):
    """An error that was planned for: what and where, the value found, and what to do.

    Args:
        message: What is wrong, where, and the value found.
        hint: What to do about it.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.message, self.hint))

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


def _rebuild(kind: type[EdgekitError], message: str, hint: str) -> EdgekitError:
    return kind(message, hint=hint)


class RecipeError(EdgekitError):
    """Something given is wrong: usage, a recipe, a model, data, an output path that is taken."""

    exit_code = 2


class GateError(EdgekitError):
    """A gate failed: accuracy, latency, size or memory."""

    exit_code = 3


class ContractError(EdgekitError):
    """A contract was broken: parity, precision share, placement or fingerprint."""

    exit_code = 4


class DeviceError(EdgekitError):
    """A device cannot be reached or was lost."""

    exit_code = 5


class LinkError(DeviceError):
    """The line to a device was cut or is slow: trying again may help."""


class VerificationError(EdgekitError):
    """A bundle or its signature failed verification."""

    exit_code = 6


class MissingError(EdgekitError):
    """An extra, a tool or a driver that is needed is not installed."""

    exit_code = 7


class ResourceError(EdgekitError):
    """This machine cannot do it now: no space, no permission, no memory, locked."""

    exit_code = 8


INTERRUPTED = 130
