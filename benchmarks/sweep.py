"""What a job costs beside its own work: `python -m benchmarks.sweep`.

No-op jobs on the pool (1 and 2 processes) and, where ray is installed, on local clusters of 1, 2 and 4 nodes of one
CPU each; the rounds are interleaved, so that a busy moment hits all alike. Start is what the first job waits for;
overhead is the slope between few and many jobs. Then real jobs, tiny trainings, on 1 and 2 workers. Processor time is
that of the pool only: a cluster's workers end unseen.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import logging
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from sac_kernel.experiment import job_pool, sweep
from sac_kernel.prices.pipeline import DataConfig, DataPipeline
from sac_kernel.prices.processed_file import write_processed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sac_kernel.experiment.job_pool import Place

FEW, MANY = 10, 1010
POOLS, NODES = (1, 2), (1, 2, 4)
TINY = (
    "num_episodes=2", "eval_frequency=2", "checkpoint_frequency=2", "num_envs=10", "env_episode_length=600",
    "sac_warmup_steps=600",
)  # fmt: skip


def nothing(job: Mapping[str, Any], place: Place) -> dict[str, Any]:  # noqa: ARG001  # the pool passes both
    """Return at once."""
    return {"x": job["x"]}


@contextlib.contextmanager
def cluster(nodes: int) -> Iterator[str]:
    """Start a Ray cluster of so many nodes of one CPU on this machine; give its address."""
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "300")  # a busy machine takes its time
    os.environ.setdefault(
        "RAY_worker_niceness", "0"
    )  # else 15: a busy neighbour would stop them, not the pool
    from ray.cluster_utils import Cluster

    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    for _ in range(nodes - 1):
        started.add_node(num_cpus=1)
    started.wait_for_nodes()
    try:
        yield started.address
    finally:
        started.shutdown()


def cpu_s() -> float:
    """Return the processor time of this process and everything it has started, ended or not."""
    own = psutil.Process()
    total = 0.0
    for process in (own, *own.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            total += sum(process.cpu_times()[:4])  # user, system, and those of its ended children
    return total


def seconds_of(jobs: int, **where: Any) -> tuple[float, float]:
    """Return wall and processor time of so many no-op jobs."""
    with tempfile.TemporaryDirectory() as folder:
        started_s, used_s = time.perf_counter(), cpu_s()
        outcomes = job_pool.run([{"x": x} for x in range(jobs)], nothing, Path(folder), **where)
        assert [o.result for o in outcomes] == [{"x": x} for x in range(jobs)]
        return time.perf_counter() - started_s, cpu_s() - used_s


def places() -> list[tuple[str, int, int]]:
    """Return label, processes of the pool and nodes of the cluster to compare."""
    found = [(f"pool, {n} process{'es' if n > 1 else ''}", n, 0) for n in POOLS]
    if importlib.util.find_spec("ray"):
        found += [(f"ray, {n} node{'s' if n > 1 else ''}", 0, n) for n in NODES]
    return found


@contextlib.contextmanager
def where(workers: int, nodes: int) -> Iterator[dict[str, Any]]:
    """Give what `job_pool.run` needs to know of a place."""
    if not nodes:
        yield {"workers": workers}
        return
    with cluster(nodes) as address:
        yield {"address": address}


def overhead(rounds: int) -> None:
    """Print start and overhead a job of every place, in wall and, of the pool, in processor time."""
    taken: dict[str, list[tuple[float, ...]]] = {}
    for _ in range(rounds):
        for label, workers, nodes in places():
            with where(workers, nodes) as place:
                few, many = seconds_of(FEW, **place), seconds_of(MANY, **place)
            slopes = [1e3 * (b - a) / (MANY - FEW) for a, b in zip(few, many, strict=True)]
            taken.setdefault(label, []).append((*few, *slopes))
            print(label, *(f"{x:.2f}" for x in taken[label][-1]), file=sys.stderr, flush=True)
    print(
        f"| no-op jobs, median of {rounds} | {FEW} jobs, start included [s] | the same [CPU s] | each more [ms] "
        "| the same [CPU ms] |\n|---|---|---|---|---|"
    )
    for label, rows in taken.items():
        few_s, few_cpu, wall, cpu = (statistics.median(column) for column in zip(*rows, strict=True))
        seen = (f"{few_cpu:.1f}", f"{cpu:.1f}") if label.startswith("pool") else ("", "")
        print(f"| {label} | {few_s:.1f} | {seen[0]} | {wall:.1f} | {seen[1]} |", flush=True)


def throughput(rounds: int, jobs: int) -> None:
    """Print how many real jobs a minute one and two workers do, and what a job costs."""
    taken: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        bars = Path(folder) / "bars.h5"
        write_processed(DataPipeline(DataConfig(output_path=str(bars))).build(), bars)
        for i in range(rounds):
            for label, workers, nodes in places():
                if max(workers, nodes) > 2:
                    continue
                with where(workers, nodes) as place:
                    runs = sweep.grid([1], range(jobs), TINY)
                    started_s, used_s = time.perf_counter(), cpu_s()
                    outcomes = sweep.run_sweep(runs, {"all": bars}, Path(folder) / f"{i} {label}", **place)
                    assert all(o.result for o in outcomes), [o.failure for o in outcomes]
                    rate = 60.0 * jobs / (time.perf_counter() - started_s)
                    taken.setdefault(label, []).append((rate, (cpu_s() - used_s) / jobs))
                print(label, *(f"{x:.2f}" for x in taken[label][-1]), file=sys.stderr, flush=True)
    print(f"\n| {jobs} tiny trainings, median of {rounds} | jobs a minute | CPU s a job |\n|---|---|---|")
    for label, rows in taken.items():
        rate, cpu = (statistics.median(column) for column in zip(*rows, strict=True))
        print(f"| {label} | {rate:.1f} | {f'{cpu:.1f}' if label.startswith('pool') else ''} |", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=8, help="real ones; 0 leaves them out")
    args = parser.parse_args()
    logging.getLogger().setLevel(logging.ERROR)
    print(f"Python {platform.python_version()}, {', '.join(label for label, _, _ in places())}\n", flush=True)
    overhead(args.rounds)
    if args.jobs:
        throughput(max(1, args.rounds - 1), args.jobs)


if __name__ == "__main__":
    main()
