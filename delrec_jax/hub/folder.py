"""Writes a finished run as a folder to be shared.

delrec.json           the list of everything: files with SHA-256, base model, systems, hybrids (`manifest`); written last
config.json           the run's settings, without paths of the machine (`settings`)
catalogue.json        ids of the items, and titles unless they were left out (`catalogue`)
systems.safetensors   SYSTEM/prompt, SYSTEM/adapters/..., SYSTEM/readout/... of the language model's systems
teachers.safetensors  TEACHER/..., parameters of the conventional recommenders that are networks; absent without any
tokenizer/            the tokenizer, as JSON
base/                 the language model itself, if the run trained it: config.json and safetensors as `transformers` has them
results.json          the rows of report/metrics.json: means and intervals over users, of every system
README.md             the model card (`card`)

Pretrained weights are not copied: the folder names them, with a hash. The systems are the language model without a prompt and
with the distilled one, DELRec, the teacher if it is a network, and hybrids of these. Recommenders in closed form are made of
interactions, and stay where these are; so do the tuned controls.
"""

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax

import delrec_jax
from delrec_jax.analysis.tables import read_metrics_json, write_metrics_json
from delrec_jax.delrec.report import notes
from delrec_jax.errors import UserError
from delrec_jax.files import expanded, file_hash, whole, write_text
from delrec_jax.hub.card import Facts, model_card
from delrec_jax.hub.catalogue import titles_hash, write_catalogue
from delrec_jax.hub.manifest import CARD, FORMAT, Manifest, SharedBase, SharedSystem, write_manifest
from delrec_jax.hub.settings import shared_settings
from delrec_jax.hub.tensors import write_tensors
from delrec_jax.language import hub
from delrec_jax.language.families import find_family
from delrec_jax.language.hub import TOKENIZER_FILES
from delrec_jax.serving.run_parts import RunParts
from delrec_jax.serving.served_systems import Answering
from delrec_jax.stages.export import check_exportable
from delrec_jax.stages.inputs import Inputs
from delrec_jax.teachers.network import NetworkTeacher
from delrec_jax.training.writers import say
from delrec_jax.workdir import base_model
from delrec_jax.workdir.json_files import read_json, write_json
from delrec_jax.workdir.language_model import Language
from delrec_jax.workdir.language_scorer import LanguageSystem
from delrec_jax.workdir.recommenders import AUGMENTED, PLAIN, distilled_cell
from delrec_jax.workdir.workspace import Workspace

_SYSTEMS = ("lm_no_prompt", "lm_supervised", "lm_readout", "lm_distilled_prompt", "delrec")


@dataclass(frozen=True)
class Choices:
    """What the user decides about a shared folder.

    Attributes:
      titles: whether the titles are written; without them, whoever opens the folder has to bring them.
      base: what pretrained weights are called on a hub, if the run read them from a folder; "" = as in `lm.weights`.
      license: what the card states, such as `apache-2.0`; "" = nothing.
    """

    titles: bool = True
    base: str = ""
    license: str = ""


def export_shared(ws: Workspace, output: Path, choices: Choices) -> None:
    """Writes the folder; it appears complete or not at all.

    Titles of the catalogue go with it unless they are left out; what the data's terms say about that is the user's to check.

    Args:
      ws: a run with a finished `tune`.
      output: a directory that does not exist yet or is empty.
      choices: what goes with it.

    Raises:
      UserError: the run cannot be shared, or the directory is in use.
    """
    check_exportable(ws, output)
    inputs = Inputs(ws)
    parts, base = RunParts(ws, inputs), _base(ws, choices.base)
    settings = shared_settings(ws.experiment, base.name)
    kept = {name: parts.language_system(name) for name in parts.prompted if name in _SYSTEMS}
    networks = _networks(parts)
    found = {*kept, *networks}
    manifest = Manifest(
        format=FORMAT,
        version=delrec_jax.__version__,
        base=base,
        systems={name: _described(system) for name, system in kept.items()},
        teachers=tuple(networks),
        hybrids={name: dict(of) for name, of in parts.hybrids.items() if set(of) <= found},
        titles_sha256=titles_hash(parts.catalogue.titles),
        files={},
    )
    with whole(Path(os.path.realpath(output))) as folder:
        folder.mkdir()
        write_json(folder / "config.json", settings)
        write_catalogue(folder / "catalogue.json", parts.catalogue, titles=choices.titles)
        write_tensors(
            folder / "systems.safetensors", {name: _tree(one) for name, one in kept.items()}
        )
        if networks:
            write_tensors(folder / "teachers.safetensors", networks)
        _write_model(ws, inputs.language, folder, whole_model=not base.name)
        _write_card(ws, inputs, folder, manifest, choices)
        write_manifest(folder, replace(manifest, files=_hashes(folder)))
    travel = f"with the titles of {parts.catalogue.num_items} items: check that the data's terms allow it"
    names = ", ".join([*manifest.teachers, *manifest.systems, *manifest.hybrids])
    say(f"{output}: {names}; {travel if choices.titles else 'without titles'}")


def _base(ws: Workspace, name: str) -> SharedBase:
    """What the folder says of pretrained weights; of a folder on this machine only its last part."""
    weights = ws.experiment.lm.weights
    if not weights:
        return SharedBase("", "", "")
    local = expanded(weights).is_dir()
    commit = "" if name or local else hub.commit_of(hub.resolve(weights)) or ""
    known = name or (expanded(weights).resolve().name if local else weights)
    return SharedBase(known, commit, base_model.fingerprint(ws))


def _networks(parts: RunParts) -> dict[str, Any]:
    """The parameters of the recommenders that are networks.

    Raises:
      UserError: the language model needs a recommender that is none.
    """
    found = {}
    for name in (PLAIN, AUGMENTED):
        if name in parts.conventional and isinstance(
            teacher := parts.teacher(name)[0], NetworkTeacher
        ):
            found[name] = teacher.params
    config = parts.experiment
    if not Answering(parts).ranks_catalogue and distilled_cell(config).system not in found:
        raise UserError(
            f"this run's language model ranks stated candidates only, and its teacher ({config.teacher.name}), which states "
            "them, is not a network that could go with it: use a run with another lm.verbalizer or teacher"
        )
    return found


def _tree(system: LanguageSystem) -> dict[str, Any]:
    """What is stored of a system; the prompt only where texts have slots for it."""
    parts = {"adapters": system.adapters, "readout": system.readout}
    if len(system.pattern):
        parts["prompt"] = system.prompt
    return {name: part for name, part in parts.items() if jax.tree.leaves(part)}


def _described(system: LanguageSystem) -> SharedSystem:
    return SharedSystem(tuple(sorted(_tree(system))), system.step, system.beside)


def _write_model(ws: Workspace, language: Language, folder: Path, *, whole_model: bool) -> None:
    """Writes the tokenizer, and the language model itself if it is nowhere else."""
    source = base_model.tokenizer_directory(ws)
    (folder / "tokenizer").mkdir()
    for name in TOKENIZER_FILES:
        if name.endswith(".json") and (source / name).is_file():
            shutil.copyfile(source / name, folder / "tokenizer" / name)
    if whole_model:
        params = base_model.stored_params(ws, language.model, language.layout)
        family = find_family(ws.experiment.lm.family)
        family.export_model(params, language.model, folder / "base")


def _write_card(
    ws: Workspace, inputs: Inputs, folder: Path, manifest: Manifest, choices: Choices
) -> None:
    """Writes the results, if the run has a report, and the card."""
    file = ws.folder("report") / "metrics.json"
    rows = read_metrics_json(file) if ws.finished("report") else []
    write_metrics_json(folder / "results.json", rows)
    # As others know it: without paths of this machine.
    lm = replace(ws.experiment.lm, weights=manifest.base.name)
    experiment = replace(ws.experiment, lm=lm)
    facts = Facts(
        corpus=inputs.data.corpus.name,
        statistics=read_json(ws.folder("prepare") / "statistics.json"),
        model=inputs.language.model.description,
        example=inputs.data.corpus.catalogue.titles[:2],
        notes=tuple(notes(experiment, inputs.data)),
        titles=choices.titles,
        license=choices.license,
    )
    write_text(folder / CARD, model_card(experiment, manifest, rows, facts))


def _hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): file_hash(path) for path in files if path.name != CARD
    }
