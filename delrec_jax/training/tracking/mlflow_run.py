"""MLflow: one run per workdir, with all of its training runs.

MLflow's own environment variables say where: `MLFLOW_TRACKING_URI` (a server, or a file such as `sqlite:////PATH/mlflow.db`;
by default MLflow's own, `mlflow.db` where the command runs) and `MLFLOW_EXPERIMENT_NAME` (`delrec-jax`). Metrics are called
`TRAINING/METRIC`; MLflow refuses some characters in names, so `HR@1` is `HR_1`.
"""

import os
import re
import time
from collections.abc import Mapping
from typing import Any

from delrec_jax.training.tracking.remote import PROJECT, Opening

_AT_ONCE = 100  # parameters that MLflow takes in one call
_LONGEST = 500  # characters of a parameter that every version of MLflow takes
_REFUSED = re.compile(r"[^\w.\- :/]")
# A server that is away must not hold up training for the minutes that MLflow would try.
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}


class MLflowRun:
    """A `RemoteRun` of MLflow."""

    def __init__(self, client: Any, run_id: str):
        """Takes MLflow's client and the id of an existing run."""
        self._client, self._id = client, run_id

    @property
    def id(self) -> str:
        """MLflow's id of the run."""
        return self._id

    def log(self, training: str, step: int, values: Mapping[str, float], *, number: int) -> None:
        """Logs the numbers as metrics `TRAINING/METRIC` at the step."""
        self._log({f"{training}/{name}": value for name, value in values.items()}, step)

    def results(self, values: Mapping[str, float], *, number: int) -> None:
        """Logs the results as metrics `results/SYSTEM/METRIC`, of which MLflow shows the latest."""
        self._log({f"results/{name}": value for name, value in values.items()}, number)

    def close(self, *, finished: bool) -> None:
        """Sets the run's status."""
        self._client.set_terminated(self._id, "FINISHED" if finished else "FAILED")

    def _log(self, values: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = time.time_ns() // 10**6
        metrics = [
            Metric(metric_name(name), value, now, step) for name, value in sorted(values.items())
        ]
        self._client.log_batch(self._id, metrics=metrics)


def open_run(opening: Opening) -> MLflowRun:
    """Goes on with a run, or makes one with the workdir's name and settings."""
    for name, value in _PATIENCE.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient
    from mlflow.entities import Param

    client = MlflowClient()
    if opening.id:
        client.update_run(opening.id, status="RUNNING")
        return MLflowRun(client, opening.id)
    made = client.create_run(_experiment(client), run_name=opening.name)
    run_id: str = made.info.run_id
    params = [
        Param(metric_name(key), str(value)[:_LONGEST])
        for key, value in sorted(opening.settings.items())
    ]
    for first in range(0, len(params), _AT_ONCE):
        client.log_batch(run_id, params=params[first : first + _AT_ONCE])
    return MLflowRun(client, run_id)


def metric_name(name: str) -> str:
    """Returns a name as MLflow takes it."""
    return _REFUSED.sub("_", name)


def _experiment(client: Any) -> str:
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT
    found = client.get_experiment_by_name(name)
    experiment: str = client.create_experiment(name) if found is None else found.experiment_id
    return experiment
