"""The package's errors. Every one says where, what was required, what was found and what to do."""

from __future__ import annotations


class SacKernelError(Exception):
    """Base of all errors raised on purpose by this package."""


class ConfigError(SacKernelError, ValueError):
    """A parameter is unknown, of the wrong type or out of range."""


class DataError(SacKernelError, ValueError):
    """Bars or features cannot be used as they are."""


class InputNotFoundError(SacKernelError, FileNotFoundError):
    """An input file is not where it was looked for."""


class StorageError(SacKernelError, OSError):
    """A file could not be written: the disk is full, the folder read-only or gone."""


class DeviceError(SacKernelError, RuntimeError):
    """The requested device is absent or does not work."""


class CheckpointError(SacKernelError, RuntimeError):
    """A saved agent or training state does not fit or is damaged."""


class NonFiniteError(SacKernelError, ArithmeticError):
    """A loss, parameter, observation or action stopped being a finite number; `tensor` names it where it is known."""

    def __init__(self, message: str, tensor: str = "") -> None:
        super().__init__(message)
        self.tensor = tensor


class TimeUpError(SacKernelError):
    """The run's own clock ran out inside a step that the next session repeats."""


class KaggleError(SacKernelError, RuntimeError):
    """Kaggle, or its client, did not do what was asked; `kind` is the cause in one word, for callers."""

    def __init__(self, message: str, kind: str = "unknown") -> None:
        super().__init__(message)
        self.kind = kind
