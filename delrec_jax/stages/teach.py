"""`delrec teach`: trains the conventional recommender on the training part only."""

from dataclasses import asdict

from delrec_jax.config import BaselinesConfig
from delrec_jax.distributed import on_main
from delrec_jax.files import file_hash
from delrec_jax.teachers.registry import NETWORKS, display_name
from delrec_jax.training.writers import say
from delrec_jax.workdir.prepared import Data
from delrec_jax.workdir.recommenders import choose_settings, taught_path
from delrec_jax.workdir.teacher_training import TeacherTraining
from delrec_jax.workdir.workspace import Workspace, write_json


def teach(ws: Workspace, data: Data) -> None:
    """Trains the configured network, selected by validation NDCG@10 in full ranking.

    A recommender in closed form is not trained: its settings are chosen, by the same metric.
    """
    config, path = ws.experiment.teacher, ws.folder("teach") / "teacher.json"
    if config.name not in NETWORKS:
        # The default draw of users: what a teacher is must not depend on the settings of the baselines.
        choice = asdict(choose_settings(config.name, data, BaselinesConfig()))
        on_main(lambda: write_json(path, {"name": config.name, "choice": choice}))
        return
    _, result = TeacherTraining(ws.experiment, config, data.split, data.num_items).fit(
        "teacher",
        taught_path(ws).parent,
        seed=ws.experiment.seed,
        identity=ws.identity("teach"),
    )
    checkpoint = file_hash(taught_path(ws))
    on_main(lambda: write_json(path, {"name": config.name, "checkpoint": checkpoint}))
    say(
        f"  {display_name(config.name)}: validation NDCG@10 {result['best_value']:.4f} at step {result['best_step']} "
        f"of {result['steps']}"
    )
