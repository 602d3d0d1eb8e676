"""Train tiny agents, and print the versions and one digest of the learnt weights: equal digests are equal bits.

python -m tests.training_digest         # `make test-python` ends with it

The digest may differ between kinds of processors, whose matrix products round in other orders. On one machine it
says whether another Python or other packages train another agent.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
import torch

from sac_kernel.core import files, packages
from sac_kernel.prices.ingest.writer import write_processed
from tests import crash
from tests.conftest import make_data


def weights_digest(folder):
    """SHA-256 of the weights and the feature scaler of every saved agent below a folder, by name."""
    total = hashlib.sha256()
    for path in sorted(Path(folder).rglob("agent_*.pt")):
        saved = files.read_pt(path)
        total.update(path.relative_to(folder).as_posix().encode())
        crash.canonical(total, {name: saved[name] for name in ("weights", "features", "updates")})
    return total.hexdigest()


def main():
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        h5, out = Path(folder) / "processed_data.h5", Path(folder) / "out"
        write_processed(make_data(1600), h5)
        crash.trainer(h5, out, whole=False)()
        if len(list(out.rglob("agent_1_ep*.pt"))) < 3:  # episodes; SIGTERM ends a training early and in order
            sys.exit("the training was stopped before its end, and its digest says nothing")
        sys.stdout.write(f"{packages.versions()}\n{weights_digest(out)}\n")


if __name__ == "__main__":
    main()
