"""Orbax's manager of a run's checkpoints: which are kept, and what it must not ask.

A file of its own, as it is the only one whose names are Orbax's. Orbax is imported late: it takes half a second to load.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

_LATEST = 2  # the newest may be that of a run which is about to diverge


def open_manager(directory: Path, written: Callable[[], None]) -> Any:
    """Returns the manager of a directory, which it creates: it keeps the two latest, the best and the last planned checkpoint.

    Args:
      directory: absolute.
      written: called when a checkpoint is on disk, before it gets its name.
    """
    import orbax.checkpoint as ocp
    from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

    class Manager(ocp.CheckpointManager):
        def reached_preemption(self, step: int) -> bool:
            """Never.

            Orbax would ask JAX's service by the number of the step, and the training loop asks it by a count of its own
            (`preemption`). The service lets all processes end at the number after the last that it was asked: after that of a
            step, the count may never come there.
            """
            return False

    def value(metrics: Any) -> float:
        return float(metrics["value"])

    def planned(metrics: Any) -> int:
        return int(metrics.get("planned", -1))

    best = [BestN(get_metric_fn=of, n=1) for of in (value, planned)]
    options = ocp.CheckpointManagerOptions(
        best_fn=value,  # without it the metrics would not be stored
        preservation_policy=AnyPreservationPolicy([LatestN(_LATEST), *best]),
        enable_async_checkpointing=True,
        # Made in the background, a folder that cannot be made leaves threads that wait for five minutes, and with them the
        # process after its last word.
        async_options=ocp.AsyncOptions(
            create_directories_asynchronously=False, post_finalization_callback=written
        ),
    )
    return Manager(directory, options=options)
