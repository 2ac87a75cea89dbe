"""`delrec teach`: makes the conventional recommender from the training part only."""

from dataclasses import asdict
from typing import Any

from delrec_jax.distributed import on_main
from delrec_jax.files import expanded, file_hash
from delrec_jax.stages.histories import check_lists
from delrec_jax.teachers.registry import LISTS, NETWORKS, closed_form, display_name, parts_of
from delrec_jax.training.writers import say
from delrec_jax.workdir.augmented_ease import CHOOSING
from delrec_jax.workdir.closed_forms import choose_settings
from delrec_jax.workdir.conventional_system import ConventionalSystem
from delrec_jax.workdir.hybrids import HybridWeights, Weighted
from delrec_jax.workdir.json_files import write_json
from delrec_jax.workdir.listed_teacher import read_listed, save_listed
from delrec_jax.workdir.prepared import Data
from delrec_jax.workdir.recommenders import load_part, part_length, taught_path
from delrec_jax.workdir.teacher_training import TeacherTraining
from delrec_jax.workdir.workspace import Workspace


def teach(ws: Workspace, data: Data) -> None:
    """Trains the configured network, selected by validation NDCG@10 in full ranking, and writes `teacher.json`.

    A recommender in closed form is not trained: its settings are chosen, by the same metric. Of a hybrid, the parts are made
    so, one by one, and then their weights are chosen, by the same metric too. Lists of another system are checked and stored.
    """
    if ws.experiment.teacher.name == LISTS:
        _take_lists(ws, data)
        return
    name = ws.experiment.teacher.name
    parts = {part: _made(ws, data, part) for part in parts_of(name)}
    facts = parts[name] if name in parts else {"parts": parts} | _weighted(ws, data, parts)
    folds = {"folds": ws.experiment.teacher.folds} if ws.experiment.teacher.folds else {}
    content = {"name": name, **facts, **folds}
    on_main(lambda: write_json(ws.folder("teach") / "teacher.json", content))


def _take_lists(ws: Workspace, data: Data) -> None:
    """Stores the lists of the user's file, if every history that will be asked has one."""
    path = expanded(ws.experiment.teacher.lists)
    found = read_listed(path, data)
    check_lists(found, ws.experiment, data)
    save_listed(ws, found)
    content = {"name": LISTS, "file": file_hash(path), "histories": len(found.users)}
    on_main(lambda: write_json(ws.folder("teach") / "teacher.json", content))
    say(f"  {path}: {len(found.users)} lists with {len(found.items)} items in all")


def _made(ws: Workspace, data: Data, name: str) -> dict[str, Any]:
    """Trains a network, or chooses the settings of a closed form; returns what identifies it."""
    network = ws.experiment.teacher.network
    if network is None or name not in NETWORKS:
        return {"choice": asdict(choose_settings(closed_form(name), data, CHOOSING))}
    training = TeacherTraining(
        ws.experiment, network, data.split, data.num_items, watch=ws.watch, saved=ws.saved
    )
    _, result = training.fit(
        "teacher",
        taught_path(ws).parent,
        seed=ws.experiment.seed,
        identity=ws.identity("teach"),
    )
    say(
        f"  {display_name(name)}: validation NDCG@10 {result['best_value']:.4f} at step {result['best_step']} "
        f"of {result['steps']}, which are {training.epochs(result['steps']):.3g} epochs"
    )
    if result["best_step"] == result["steps"] == network.loop.steps:
        say(
            "  WARNING: it was still improving when teacher.loop.steps ended: a larger number may give a better teacher, and "
            "a fairer comparison"
        )
    return {"checkpoint": file_hash(taught_path(ws))}


def _weighted(ws: Workspace, data: Data, parts: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Chooses the weights of a hybrid's parts by validation, as those of the baselines' hybrids are."""
    systems = {
        name: ConventionalSystem(
            load_part(ws, data, name, facts), data.split, part_length(ws.experiment, name)
        )
        for name, facts in parts.items()
    }
    found: Weighted = HybridWeights(data.split, CHOOSING, systems).choose(tuple(parts))
    told = ", ".join(
        f"{display_name(name)} {weight:g} (alone {found.parts_ndcg10[name]:.4f})"
        for name, weight in found.weights.items()
    )
    title = display_name(ws.experiment.teacher.name)
    say(f"  {title}: validation NDCG@10 {found.valid_ndcg10:.4f} with weights {told}")
    return asdict(found)
