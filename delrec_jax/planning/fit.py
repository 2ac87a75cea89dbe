"""Decides whether stages fit a chip, and finds settings that would make them smaller."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import gcd, prod
from typing import Any

from delrec_jax.config import Experiment
from delrec_jax.errors import UserError
from delrec_jax.language.families import find_family
from delrec_jax.planning.chips import Chip
from delrec_jax.planning.memory import StageMemory, stage_memory
from delrec_jax.planning.shapes import Assumed
from delrec_jax.planning.shardings import sharding_rows
from delrec_jax.planning.tasks import planned_tasks
from delrec_jax.training.mesh import check_slices, mesh_sizes
from delrec_jax.workdir.stage_table import adapting_stages

_WORDS = {"yes": "fits", "likely": "likely fits", "no": "does not fit"}


@dataclass(frozen=True)
class Verdict:
    """Whether a chip is large enough: `yes`, `likely` (the estimate fits, the compiler's figure does not) or `no`, and why."""

    chip: Chip
    fits: str
    reason: str

    def __str__(self) -> str:
        return f"{self.chip.name:8} {_WORDS[self.fits]}: {self.reason}"


def judge(
    chip: Chip, stages: Sequence[StageMemory], *, sizes: tuple[int, int, int], for_chip: bool
) -> Verdict:
    """Compares the largest stage with the memory that a program gets, and the mesh with the nodes that such chips are in.

    Args:
      chip: what kind the devices would be.
      stages: the stages, with or without the compiler's figures.
      sizes: of the mesh (`mesh_sizes`).
      for_chip: whether the compiler was this chip's own; another one's figures are weighed against the estimate.
    """
    try:
        check_slices(sizes, chip.nodes(prod(sizes)))
    except UserError as error:
        return Verdict(chip, "no", str(error))
    for stage in stages:
        if stage.refused:
            return Verdict(
                chip, "no", f"its compiler refuses {stage.stage} ({stage.refused[:160]})"
            )
    low = max(stages, key=lambda stage: _needs(stage, for_chip)[0])
    high = max(stages, key=lambda stage: _needs(stage, for_chip)[1])
    least, most = _needs(low, for_chip)[0], _needs(high, for_chip)[1]
    room = f"of {in_units(chip.available)} that a program gets ({chip.reserve})"
    if most <= chip.available:
        return Verdict(chip, "yes", f"{in_units(most)} ({high.stage}) {room}")
    if least <= chip.available:
        both = f"{in_units(least)} by the estimate ({low.stage}), {in_units(most)} by XLA for CPU ({high.stage})"
        return Verdict(
            chip, "likely", f"{both}, {room}; use --compile=chip --chip={chip.name} to find out"
        )
    if least <= chip.most:
        more = f"it would fit with XLA_CLIENT_MEM_FRACTION={chip.most / chip.memory:.2f}"
        return Verdict(chip, "no", f"{in_units(least)} ({low.stage}) {room}: {more}")
    return Verdict(chip, "no", f"{in_units(least)} ({low.stage}) {room}")


def _needs(stage: StageMemory, for_chip: bool) -> tuple[int, int]:
    """Returns the least and the most bytes that a stage may need."""
    if stage.by_compiler is None:
        return stage.by_estimate, stage.by_estimate
    if for_chip:
        return stage.by_compiler, stage.by_compiler
    return stage.by_estimate, max(stage.by_compiler, stage.by_estimate)


@dataclass(frozen=True)
class Remedy:
    """Settings that make the largest stage smaller, and the bytes that it would then need by the estimate."""

    settings: str
    needed: int


def remedies(
    experiment: Experiment, devices: Sequence[Any], assumed: Assumed, *, nodes: int = 1
) -> tuple[int, list[Remedy]]:
    """Estimates what the largest stage needs now, and with each single change of settings; what helps most comes first.

    Args:
      experiment: the config.
      devices: the devices to plan for.
      assumed: sizes that a corpus would determine.
      nodes: in how many nodes they are: weights are not divided over the network between them.
    """
    now = _estimated(experiment, devices, assumed)
    found = []
    for settings, changed in _changes(experiment, len(devices), nodes):
        try:
            needed = _estimated(changed, devices, assumed)
        except UserError:
            continue  # these heads or batches do not divide over this mesh
        if needed < now:
            found.append(Remedy(settings, needed))
    return now, sorted(found, key=lambda remedy: remedy.needed)


def _estimated(experiment: Experiment, devices: Sequence[Any], assumed: Assumed) -> int:
    steps = planned_tasks(experiment, devices, assumed)
    return max(
        stage_memory(experiment, planned, sharding_rows(planned), assumed).by_estimate
        for planned in steps
    )


def _changes(experiment: Experiment, devices: int, nodes: int) -> list[tuple[str, Experiment]]:
    """Returns each change of settings, with the experiment that has it."""
    return [
        *_meshes(experiment, devices, nodes),
        *_parts(experiment, devices),
        *_types(experiment),
    ]


def _meshes(experiment: Experiment, devices: int, nodes: int) -> Iterator[tuple[str, Experiment]]:
    """Meshes that split the weights over all devices of a node and, with `tensor` > 1, the work on each example too."""
    for tensor in (1, 2, 4, 8):
        fsdp = devices // (nodes * tensor)
        mesh = replace(experiment.mesh, data=nodes, fsdp=fsdp, tensor=tensor)
        if devices > 1 and devices % (nodes * tensor) == 0:
            settings = f"mesh.data={nodes} mesh.fsdp={mesh.fsdp} mesh.tensor={tensor}"
            yield settings, replace(experiment, mesh=mesh)


def _parts(experiment: Experiment, devices: int) -> Iterator[tuple[str, Experiment]]:
    """Batches computed in parts that still divide over the devices."""
    data, fsdp, _ = mesh_sizes(experiment.mesh, devices)
    stages: dict[str, Any] = {
        name: getattr(experiment, name) for name in adapting_stages(experiment.method)
    }
    fewest = max(stage.optimizer.accumulate for stage in stages.values())
    rows = gcd(*(stage.batch_size for stage in stages.values()))
    for parts in (2, 4, 8, 16):
        if parts > fewest and rows % (parts * data * fsdp) == 0:
            settings = " ".join(f"{name}.optimizer.accumulate={parts}" for name in stages)
            yield settings, replace(experiment, **{n: _in(s, parts) for n, s in stages.items()})


def _in(stage: Any, parts: int) -> Any:
    """Returns a stage's config with its batches in this many parts."""
    return replace(stage, optimizer=replace(stage.optimizer, accumulate=parts))


def _types(experiment: Experiment) -> Iterator[tuple[str, Experiment]]:
    """Settings that concern only the language model."""
    lm = experiment.lm
    for settings, changes in find_family(lm.family).smaller(lm):
        yield settings, replace(experiment, lm=replace(lm, **changes))


def in_units(size: int) -> str:
    """Formats a number of bytes for reading, such as `1.5 GiB`."""
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size} B"
