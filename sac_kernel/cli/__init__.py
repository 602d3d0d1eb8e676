"""The command line: one parser, one spelling for each option in all commands.

`main` finds the command, `options` and `settings` are what commands share, and each command has a module. A module
is imported only when its command is called, so `--help` loads no framework.
"""

from sac_kernel.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(__name__, {"main": "COMMANDS make_parser"})
