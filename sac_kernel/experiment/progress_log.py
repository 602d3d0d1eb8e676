"""The curves of a training for other tools: logs/progress.csv, and TensorBoard events where it is installed.

Both hold one entry an episode. They carry no clock, so equal runs leave equal bytes.
"""

from __future__ import annotations

import functools
import io
import logging
import math
from typing import TYPE_CHECKING, Any

from sac_kernel.core import files
from sac_kernel.core.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

logger = logging.getLogger(__name__)

CSV_FILE = "logs/progress.csv"
EVENTS_FILE = "logs/tensorboard/events.out.tfevents.progress"
COLUMNS = {
    "episode_rewards": ("reward_log_return", "train/reward_log_return"),
    "episode_lengths": ("length_steps", "train/length_steps"),
    "updates": ("updates", "train/updates"),
    "mean_abs_actions": ("mean_abs_action", "train/mean_abs_action"),
    "critic_losses": ("critic_loss", "losses/critic"),
    "actor_losses": ("actor_loss", "losses/actor"),
    "alpha_values": ("alpha", "losses/alpha"),
    "entropies": ("entropy_nats", "losses/entropy_nats"),
    "q_values": ("mean_q", "losses/mean_q"),
    "eval_rewards": ("validation_reward_log_return", "validation/reward_log_return"),
    "eval_sharpes": ("validation_sharpe_ann", "validation/sharpe_ann"),
    "eval_drawdowns": ("validation_max_drawdown_frac", "validation/max_drawdown_frac"),
}
"""Key of training_stats -> column of the CSV, tag of TensorBoard."""


class ProgressLog:
    """Write each episode of a training as a row of `CSV_FILE` and a step of `EVENTS_FILE`.

    Parameters
    ----------
    folder : of the job
    stats : training_stats of the episodes already done, one value each; both files begin anew with them, so that
        a run which continues from its state leaves the files of an uncut run
    """

    def __init__(self, folder: Path, stats: Mapping[str, Sequence[Any]] | None = None) -> None:
        self._csv, self._events = folder / CSV_FILE, folder / EVENTS_FILE
        done = stats or {}
        episodes = range(1, 1 + max(map(len, done.values()), default=0))
        rows = [(k, {key: values[k - 1] for key, values in done.items()}) for k in episodes]
        head = ",".join(("episode", *(column for column, _ in COLUMNS.values()))) + "\n"
        files.write_text(self._csv, head + "".join(_line(*row) for row in rows))
        event = _event()
        self._event = event
        if event is not None:
            files.write_bytes(self._events, event(0, {}) + b"".join(event(*row) for row in rows))

    def write(self, episode: int, values: Mapping[str, Any]) -> None:
        """Append one episode; `values` are keyed as `COLUMNS`, None, NaN or no value is an empty cell."""
        _append(self._csv, _line(episode, values).encode())
        if self._event is not None:
            _append(self._events, self._event(episode, values))


def _line(episode: int, values: Mapping[str, Any]) -> str:
    cells = (_number(values.get(key)) for key in COLUMNS)
    return ",".join((str(episode), *("" if x is None else repr(x) for x in cells))) + "\n"


def _number(value: Any) -> float | int | None:  # noqa: ANN401  # also NumPy's
    if value is None or not math.isfinite(value):
        return None
    return int(value) if float(value).is_integer() and not isinstance(value, float) else float(value)


def _append(path: Path, content: bytes) -> None:
    try:
        with path.open("ab") as stream:
            stream.write(content)
    except OSError as err:
        msg = f"Cannot write {path}: {err.strerror or err}. Free space, then run again: the run continues."
        raise StorageError(msg) from err


@functools.cache
def _event() -> Callable[[int, Mapping[str, Any]], bytes] | None:
    """Return a function that gives the record of one episode (0: the file's head); None without TensorBoard."""
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter
    except Exception as err:  # noqa: BLE001  # a broken installation must not end a training
        logger.debug("no TensorBoard events: %s", err)
        return None

    def record(episode: int, values: Mapping[str, Any]) -> bytes:
        numbers = {tag: _number(values.get(key)) for key, (_, tag) in COLUMNS.items()}
        scalars = [Summary.Value(tag=tag, simple_value=x) for tag, x in numbers.items() if x is not None]
        stream, clock = io.BytesIO(), float(episode)
        event = (
            Event(wall_time=clock, step=episode, summary=Summary(value=scalars))
            if episode
            else Event(wall_time=clock, file_version="brain.Event:2")
        )
        RecordWriter(stream).write(event.SerializeToString(deterministic=True))
        return stream.getvalue()

    return record
