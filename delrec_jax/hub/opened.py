"""A shared folder, opened: what `serving` asks, read by safetensors and JSON alone."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import jax

from delrec_jax.config import Experiment
from delrec_jax.data.interactions import Catalogue
from delrec_jax.data.prompts import NO_PATTERN
from delrec_jax.data.title_tokens import Ids
from delrec_jax.delrec import systems
from delrec_jax.delrec.prompt_start import prompt_shapes
from delrec_jax.errors import UserError
from delrec_jax.hub.catalogue import read_catalogue
from delrec_jax.hub.manifest import (
    MANIFEST,
    Manifest,
    check_files,
    read_manifest,
    read_part,
    remedy,
)
from delrec_jax.hub.settings import read_shared_settings
from delrec_jax.hub.tensors import Tree, check_shapes, read_tensors
from delrec_jax.language import hub
from delrec_jax.language.adalora import init_adapters
from delrec_jax.language.families import find_family
from delrec_jax.language.family import LanguageModel
from delrec_jax.stages.inputs import templates_of, with_preference
from delrec_jax.teachers.network import NetworkTeacher, init_params
from delrec_jax.teachers.protocol import Teacher
from delrec_jax.teachers.registry import NETWORKS
from delrec_jax.training.mesh import own_mesh
from delrec_jax.training.sharding import Layout
from delrec_jax.workdir import base_model
from delrec_jax.workdir.language_model import Base, Language, language_on
from delrec_jax.workdir.language_scorer import LanguageSystem
from delrec_jax.workdir.title_vectors import TitleStore


class FolderParts:
    """The parts of one shared folder (`serving.parts.Parts`)."""

    def __init__(
        self,
        folder: Path,
        *,
        place: str = "",
        base: str = "",
        titles: Mapping[str, str] | None = None,
    ):
        """Checks every file, and reads the settings and the catalogue.

        Args:
          folder: what `folder.export_shared` wrote.
          place: what it is called in messages; "" = its path.
          base: a folder or hub name of the base model, where it is not where the folder says; its hash must be the same.
          titles: titles by id, if the folder has none.

        Raises:
          UserError: a file is missing, damaged or changed, or has keys that this version does not know.
        """
        self._folder, self._base, self.place = folder, base, place or str(folder)
        self._manifest: Manifest = read_manifest(folder / MANIFEST)
        check_files(folder, self._manifest)
        if self.main not in self._manifest.systems:
            raise UserError(f"{folder / MANIFEST}: has no system {self.main!r}; {remedy(folder)}")
        for file in (folder / "tokenizer").glob("*.json"):
            if "auto_map" in read_part(file):
                raise UserError(f"{file}: auto_map names code, which is not loaded; {remedy(file)}")
        settings = read_shared_settings(folder / "config.json")
        self.experiment: Experiment = replace(settings, mesh=own_mesh(settings.mesh))
        self.catalogue: Catalogue = read_catalogue(
            folder / "catalogue.json", titles, self._manifest.titles_sha256
        )

    @property
    def identity(self) -> Mapping[str, str]:
        """The hashes of all files, and of the language model if it is not among them."""
        return {**self._manifest.files, "base": self._manifest.base.sha256}

    @property
    def histories(self) -> Mapping[str, Ids]:
        """Nobody: interactions are not shared."""
        return {}

    @property
    def conventional(self) -> tuple[str, ...]:
        """The teachers that are networks."""
        return self._manifest.teachers

    @property
    def prompted(self) -> tuple[str, ...]:
        """The systems of the language model that were shared."""
        return tuple(self._manifest.systems)

    @property
    def hybrids(self) -> Mapping[str, Mapping[str, float]]:
        """Hybrids of what was shared."""
        return self._manifest.hybrids

    @property
    def main(self) -> str:
        """DELRec."""
        return "delrec"

    @cached_property
    def language(self) -> Language:
        """The base model with its tokenizer and texts.

        Raises:
          UserError: it cannot be fetched, or is not the one that the run had.
        """
        base = Base(
            self._folder / "tokenizer", self._weights, self._load, TitleStore(None, self.place)
        )
        templates = with_preference(templates_of(self.experiment))
        return language_on(base, self.experiment, self.catalogue.titles, templates)

    def teacher(self, name: str) -> tuple[Teacher, int]:
        """Loads a network, and says how many latest items it reads."""
        config = self.experiment.teacher
        if config.name not in NETWORKS:
            raise UserError(f"{self._folder / MANIFEST}: teacher.name={config.name} is no network")
        module: Any = NETWORKS[config.name](config.shape, self.catalogue.num_items)
        file = self._folder / "teachers.safetensors"
        found = read_tensors(file).get(name, {})
        bias = "output_bias" in found
        shapes = jax.eval_shape(lambda: init_params(module, jax.random.key(0), output_bias=bias))
        check_shapes(file, found, shapes)
        return NetworkTeacher(jax.device_put(found), module), config.max_length

    def language_system(self, name: str) -> LanguageSystem:
        """Loads the language model's part of a system."""
        language, facts = self.language, self._manifest.systems[name]
        file, found = self._folder / "systems.safetensors", self._tensors.get(name, {})
        check_shapes(file, found, self._expected(facts.parts))
        held = language.put(found)
        adapters = held.get("adapters")
        vectors = None
        if adapters is not None and self.experiment.tune.refresh_vectors:
            vectors = language.tuned_vectors(adapters)
        slots = "prompt" in held
        return LanguageSystem(
            language.slots if slots else NO_PATTERN,
            held["prompt"] if slots else systems.unread_prompt(self.experiment, language),
            adapters=adapters,
            readout=held.get("readout"),
            step=facts.step,
            beside=facts.beside,
            vectors=vectors,
        )

    @cached_property
    def _tensors(self) -> Tree:
        return read_tensors(self._folder / "systems.safetensors")

    def _expected(self, parts: tuple[str, ...]) -> Tree:
        """The shapes that the config asks for, of these parts of a system."""
        language, config = self.language, self.experiment
        model = language.model
        shapes = {
            "prompt": prompt_shapes(config, language.ranker),
            "adapters": jax.eval_shape(
                lambda: init_adapters(
                    model.param_shapes(),
                    config.tune.adalora,
                    jax.random.key(0),
                    closed=model.closed,
                )
            ),
            "readout": language.readout,
        }
        return {part: shapes.get(part, {}) for part in parts}

    @cached_property
    def _weights(self) -> Path:
        """The directory of the base model, with the weights that the run had."""
        shared = self._manifest.base
        if not shared.name:
            return self._folder / "base"
        place = self._base or shared.name
        try:
            directory = hub.resolve(place, (shared.commit or None) if not self._base else None)
        except UserError as error:
            raise UserError(
                f"{self.place}: its language model is {shared.name}, not part of it; give the folder or hub name where it is, "
                f"base=... or --base=... ({error})"
            ) from error
        if (found := hub.fingerprint(directory)) != shared.sha256:
            raise UserError(
                f"{self.place}: its language model {shared.name} has the SHA-256 {shared.sha256}, but {directory} has {found}: "
                "these are other weights; give the right ones by base=... or --base=..."
            )
        return directory

    def _load(self, model: LanguageModel, layout: Layout) -> Any:
        family = find_family(self.experiment.lm.family)
        params = family.load(self._weights, model, layout.of(model.param_shapes()))
        return base_model.as_held(self.experiment, params, model, layout)
