"""`delrec teach`: trains the conventional recommender on the training part alone."""

from delrec_jax.distributed import on_main
from delrec_jax.files import file_hash
from delrec_jax.teachers.registry import DISPLAY_NAMES, NETWORKS
from delrec_jax.training.writers import say
from delrec_jax.workdir.assets import load_data
from delrec_jax.workdir.recommenders import taught_path
from delrec_jax.workdir.teacher_training import TeacherTraining
from delrec_jax.workdir.workspace import Workspace, write_json


def teach(ws: Workspace) -> None:
    """Trains the named network, selected by validation NDCG@10 in full ranking; popularity needs no training."""
    config, path = ws.experiment.teacher, ws.folder("teach") / "teacher.json"
    if config.name not in NETWORKS:
        on_main(lambda: write_json(path, {"name": config.name}))
        return
    _, result = TeacherTraining(ws, load_data(ws), config).fit(
        "teacher",
        taught_path(ws).parent,
        seed=ws.experiment.seed,
        identity=ws.identity("teach"),
    )
    checkpoint = file_hash(taught_path(ws))
    on_main(lambda: write_json(path, {"name": config.name, "checkpoint": checkpoint}))
    say(
        f"  {DISPLAY_NAMES[config.name]}: validation NDCG@10 {result['best_value']:.4f} at step {result['best_step']} "
        f"of {result['steps']}"
    )
