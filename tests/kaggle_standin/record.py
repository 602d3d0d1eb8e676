"""What is kept of every request, for assertions."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Request:
    """One request as it arrived, and the status it got (0: connection closed without an answer)."""

    method: str
    host: str
    path: str
    rpc: str
    """RPC name, or blob, output, download, logs; '' for anything else."""
    body: dict[str, Any]
    """JSON of an RPC; `{"bytes": n, "range": ...}` of an upload."""
    auth: str
    """Basic, Bearer or ''; the secret itself is never kept."""
    time_s: float = field(default_factory=time.monotonic)
    status: int = 0
