"""Finds meshes and batches under which a run of the same config would read more texts per second on the same chips."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from delrec_jax.config import Experiment
from delrec_jax.errors import UserError
from delrec_jax.planning.chips import Chip
from delrec_jax.planning.memory import stage_memory
from delrec_jax.planning.shapes import Assumed
from delrec_jax.planning.shardings import sharding_rows
from delrec_jax.planning.speed import speed_of
from delrec_jax.planning.tasks import planned_tasks
from delrec_jax.planning.work import Work
from delrec_jax.training.mesh import MeshConfig, check_slices, mesh_sizes
from delrec_jax.workdir.stage_table import adapting_stages

_SHOWN, _WORTH = 3, 1.05
_LEAST = 0.95  # a compiler's figure may be so much larger than the estimate (`memory`)
_FACTORS = (1, 2, 4, 8)


@dataclass(frozen=True)
class Faster:
    """Settings, and what they are expected to give.

    Attributes:
      settings: as flags without `--config.`.
      texts: texts per second by stage.
      memory: bytes of the largest stage, by the estimate.
    """

    settings: str
    texts: dict[str, float]
    memory: int


def faster(
    experiment: Experiment,
    devices: Sequence[Any],
    works: Mapping[str, Work],
    *,
    chip: Chip,
    assumed: Assumed,
) -> tuple[Faster, list[Faster]]:
    """Returns what the config gives, and the settings that fit the chip and give at least 5 % more texts per second.

    Args:
      experiment: the config.
      devices: the devices to plan for.
      works: what the config's steps compute, by stage; work grows in proportion to the batch.
      chip: what kind the devices would be.
      assumed: sizes that a corpus would determine.

    Raises:
      UserError: the run itself would be refused on these chips, as `data` does not divide over its nodes.
    """

    def expected(settings: str, changed: Experiment) -> Faster:
        check_slices(mesh_sizes(changed.mesh, len(devices)), chip.nodes(len(devices)))
        texts, memory = {}, 0
        for planned in planned_tasks(changed, devices, assumed):
            bytes_ = stage_memory(changed, planned, sharding_rows(planned), assumed).by_estimate
            memory = max(memory, bytes_)
            if planned.stage in adapting_stages(changed.method):
                stage, grown = planned.stage, planned.rows / _batch(experiment, planned.stage)
                work = _times(works[stage], grown)
                texts[stage] = speed_of(changed, planned, work, chip=chip, assumed=assumed).texts
        return Faster(settings, texts, memory)

    now = expected("", experiment)
    found = []
    for settings, changed in _changes(experiment, len(devices)):
        try:
            one = expected(settings, changed)
        except UserError:
            continue  # these heads or batches do not divide over this mesh
        if one.memory <= _LEAST * chip.available and _slowness(one) * _WORTH < _slowness(now):
            found.append(one)
    return now, sorted(found, key=_slowness)[:_SHOWN]


def _slowness(one: Faster) -> float:
    """Seconds for one text in each stage."""
    return sum(1 / texts for texts in one.texts.values())


def _batch(experiment: Experiment, stage: str) -> int:
    size: int = getattr(experiment, stage).batch_size
    return size


def _times(work: Work, factor: float) -> Work:
    return replace(work, useful=work.useful * factor, again=work.again * factor)


def _changes(experiment: Experiment, devices: int) -> Iterator[tuple[str, Experiment]]:
    """Yields meshes with batches that divide over them: about as large as now, and two, four and eight times as large."""
    stages = adapting_stages(experiment.method)
    for mesh in _meshes(experiment.mesh, devices):
        data, fsdp, tensor = mesh_sizes(mesh, devices)
        for factor in _FACTORS:
            sizes = {
                name: _rounded(_batch(experiment, name), data * fsdp) * factor for name in stages
            }
            if network := experiment.teacher.network:
                sizes["teacher"] = _rounded(network.batch_size, data * fsdp)
            changed = {
                name: replace(getattr(experiment, name), batch_size=size)
                for name, size in sizes.items()
            }
            flags = [f"mesh.data={data} mesh.fsdp={fsdp} mesh.tensor={tensor}"]
            flags += [
                f"{name}.batch_size={size}"
                for name, size in sizes.items()
                if size != _batch(experiment, name)
            ]
            yield " ".join(flags), replace(experiment, mesh=mesh, **changed)


def _rounded(rows: int, ways: int) -> int:
    """Returns the smallest batch of at least so many rows that divides over the devices."""
    return -(-rows // ways) * ways


def _meshes(mesh: MeshConfig, devices: int) -> list[MeshConfig]:
    """Returns the config's mesh, copies of the weights on every device, and weights split over all devices."""
    data, fsdp, tensor = mesh_sizes(mesh, devices)
    sizes = {(data, fsdp, tensor), (devices, 1, 1), (1, devices, 1)}
    if devices % 2 == 0:
        sizes.add((1, devices // 2, 2))
    return [replace(mesh, data=d, fsdp=f, tensor=t) for d, f, t in sorted(sizes)]
