"""The same jobs on Ray: a local cluster of several nodes, one of them killed."""

import collections
import os
import threading
import time

import pytest

from sac_kernel.experiment import job_pool, ray_pool
from tests import pool_jobs
from tests.support import told

os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # loopback only: no test may use another address
os.environ["RAY_raylet_start_wait_time_s"] = "300"  # noqa: SIM112  # a busy machine takes its time
pytest.importorskip("ray", reason="ray is not installed: pip install -r requirements/ray.txt")

NODE = {"num_cpus": 1}
"""Each has its own raylet and its own workers."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning:ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def cluster():
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args=NODE)
    yield cluster
    cluster.shutdown()


def test_the_jobs_of_a_killed_node_run_again_and_finished_ones_do_not(cluster, tmp_path):
    diary = tmp_path / "diary.txt"
    diary.touch()
    (tmp_path / "bars.txt").write_text("bars")
    doomed = cluster.add_node(**NODE)
    cluster.wait_for_nodes()
    jobs = [{"x": x, "diary": str(diary), "sleep_s": 1.0} for x in range(8)]
    killed_at = []

    def kill_while_both_are_busy():
        while (text := diary.read_text()).count("ended") < 2 or text.count("begun") < text.count("ended") + 2:
            time.sleep(0.02)
        cluster.remove_node(doomed, allow_graceful=False)
        killed_at.append(text)

    threading.Thread(target=kill_while_both_are_busy, daemon=True).start()
    first = job_pool.run(
        jobs,
        pool_jobs.square,
        tmp_path / "out",
        inputs={"bars": tmp_path / "bars.txt"},
        pool=ray_pool.at(cluster.address),
    )
    assert [o.result["square"] for o in first] == [x * x for x in range(8)]
    assert {o.result["input"] for o in first} == {"bars"}
    assert {(tmp_path / "out" / o.name / "seen.txt").read_text() for o in first} == {"cpu"}
    begun = collections.Counter(line for line in diary.read_text().splitlines() if line.startswith("begun"))
    ended_before = set(killed_at[0].splitlines())
    again = {line for line, times in begun.items() if times > 1}
    assert 1 <= len(again) <= 2  # what the node was at; Ray may have sent it the next one already
    assert not [line for line in again if line.replace("begun", "ended") in ended_before]
    text = diary.read_text()
    job_pool.run(jobs, pool_jobs.square, tmp_path / "out", pool=ray_pool.at(cluster.address))
    assert diary.read_text() == text


def test_a_killed_process_and_an_error_on_ray(cluster, tmp_path):
    diary = tmp_path / "diary.txt"
    diary.touch()
    jobs = [{"x": x, "diary": str(diary), "deaths": 1 if x == 1 else 0} for x in range(3)]
    outcomes = job_pool.run(jobs, pool_jobs.dies, tmp_path / "out", pool=ray_pool.at(cluster.address))
    assert [o.result["square"] for o in outcomes] == [0, 1, 4]
    assert collections.Counter(diary.read_text().splitlines())["begun 1"] == 2
    failed = job_pool.run([{"x": 1}], pool_jobs.fails, tmp_path / "out", pool=ray_pool.at(cluster.address))
    assert told(failed[0].failure, "DataError")
