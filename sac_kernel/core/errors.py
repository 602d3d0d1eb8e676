"""The package's errors. Each message says what is wrong, where, and what to do."""

from __future__ import annotations

from sac_kernel.core.printable import printable


class SacKernelError(Exception):
    """Base of all errors that this package raises on purpose.

    Its text is fit for a terminal, whatever a file put into it.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


class ConfigError(SacKernelError, ValueError):
    """A parameter is unknown, of the wrong type or out of range."""


class DataError(SacKernelError, ValueError):
    """Bars, features or another input cannot be used as they are."""


class InputNotFoundError(SacKernelError, FileNotFoundError):
    """An input file was not found."""


class StorageError(SacKernelError, OSError):
    """A file cannot be written: the disk is full, or the folder is read-only or gone."""


class BusyError(SacKernelError):
    """Another process writes to the same folder."""


class Interrupted(KeyboardInterrupt):  # no error of this package, as KeyboardInterrupt is none
    """Ctrl-C or SIGTERM; `number` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class DeviceError(SacKernelError, RuntimeError):
    """The requested device is missing or does not work."""


class CheckpointError(SacKernelError, RuntimeError):
    """A saved agent or training state does not fit or is damaged."""


class NonFiniteError(SacKernelError, ArithmeticError):
    """A loss, parameter, observation or action is not finite; `tensor` names it if it is known."""

    def __init__(self, message: str, tensor: str = "") -> None:
        super().__init__(message)
        self.tensor = tensor


class TimeUpError(SacKernelError):
    """The time budget ran out inside a step that the next session repeats."""


class KaggleError(SacKernelError, RuntimeError):
    """Kaggle or its client failed; `kind` is the cause in one word, for callers."""

    def __init__(self, message: str, kind: str = "unknown") -> None:
        super().__init__(message)
        self.kind = kind
