"""The mesh of devices: data, fsdp and tensor, within one slice or over several.

Within a slice of a TPU, or a node of GPUs, devices are connected by fast links; between slices and nodes there is a network of
about a hundredth of their speed. Therefore only `data` is spread over several.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.experimental.mesh_utils import create_device_mesh, create_hybrid_device_mesh
from jax.sharding import AxisType, Mesh

from delrec_jax.distributed import has_others
from delrec_jax.errors import UserError

AXES = ("data", "fsdp", "tensor")

# The tables of words and items are split by rows: a lookup then exchanges only the few rows that it needs, whereas a split
# by columns would bring the full table to every device. `users` and `catalogue` split a language model's scores [B, I].
RULES = (
    "batch: data, fsdp",
    "vocab: fsdp, tensor",
    "items: tensor",
    "users: data",
    "catalogue: fsdp, tensor",
    "embed: fsdp",
    "heads: tensor",
    "mlp: tensor",
)


@dataclass(frozen=True)
class MeshConfig:
    """Number of devices along each axis; -1 (for one axis of the first three) takes those that are left.

    Attributes:
      data: copies of the weights, each with its own part of the batch.
      fsdp: devices that share the weights, each with its own part of the batch.
      tensor: devices that share the weights and the work on each example.
      dcn_data: slices of a TPU, or nodes of GPUs, that `data` is spread over: only gradients then go over the network between
        them, while fsdp and tensor stay within each. -1 = as many as there are.
      rules: `logical axis: mesh axes`, one entry per axis; an axis without a rule is never split.
    """

    data: int = -1
    fsdp: int = 1
    tensor: int = 1
    dcn_data: int = -1
    rules: tuple[str, ...] = RULES

    def __post_init__(self) -> None:
        parse_rules(self.rules)
        if self.dcn_data < 1 and self.dcn_data != -1:
            raise UserError(
                f"mesh.dcn_data is {self.dcn_data}: give the number of slices or nodes, or -1 for as many as there are"
            )

    def devices(self) -> list[Any]:
        """Returns the devices of the mesh: all devices of all processes."""
        return jax.devices()


@dataclass(frozen=True)
class OwnMesh(MeshConfig):
    """The mesh of one process among others, which have work of their own."""

    def devices(self) -> list[Any]:
        """Returns the devices of this process."""
        own: list[Any] = jax.local_devices()
        return own


def own_mesh(config: MeshConfig) -> MeshConfig:
    """Returns a config's mesh for one process alone, where its own devices hold whole copies of the weights.

    Otherwise, or without other processes, it stays as it is: all processes then work together.

    Raises:
      UserError: as in `make_mesh`.
    """
    if not has_others():
        return config
    own = len(jax.local_devices())
    _, fsdp, tensor = mesh_sizes(config, len(jax.devices()))
    if own % (fsdp * tensor):
        return config
    return OwnMesh(own // (fsdp * tensor), fsdp, tensor, rules=config.rules)


def parse_rules(rules: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Parses rules: `("vocab: fsdp, tensor",)` becomes {"vocab": ("fsdp", "tensor")}.

    Raises:
      UserError: a rule does not have this form, repeats a logical axis, or names a mesh axis that does not exist.
    """
    parsed: dict[str, tuple[str, ...]] = {}
    for rule in rules:
        name, colon, places = (part.strip() for part in rule.partition(":"))
        axes = tuple(place.strip() for place in places.split(",") if place.strip())
        if not colon or not name or name in parsed or not set(axes) <= set(AXES):
            raise UserError(
                f"mesh.rules has {rule!r}: write 'logical axis: mesh axes', such as 'vocab: fsdp, tensor'; the mesh axes "
                f"are {', '.join(AXES)}, and each logical axis has one rule"
            )
        parsed[name] = axes
    return parsed


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """Makes the mesh over these devices, or over those of the config.

    Raises:
      UserError: the sizes of the axes do not multiply to the number of devices, or `data` does not divide over the slices.
    """
    found = config.devices() if devices is None else list(devices)
    return Mesh(device_grid(config, found), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def device_grid(config: MeshConfig, devices: Sequence[Any]) -> np.ndarray:
    """Arranges the devices of one or several slices: each slice has whole rows of fsdp and tensor.

    A mesh whose axes are not those of the torus, such as 8 x 2 on a v6e-16, is allowed: neighbors are then further apart.

    Returns:
      Devices [data, fsdp, tensor].

    Raises:
      UserError: as in `make_mesh`.
    """
    data, fsdp, tensor = sizes = mesh_sizes(config, len(devices))
    slices = _slices(config, sizes, devices)
    if slices == 1:
        return create_device_mesh(sizes, devices, allow_split_physical_axes=True)
    grid: np.ndarray = create_hybrid_device_mesh(
        (data // slices, fsdp, tensor), (slices, 1, 1), devices, allow_split_physical_axes=True
    )
    return grid


def _slices(config: MeshConfig, sizes: tuple[int, int, int], devices: Sequence[Any]) -> int:
    """Returns the number of slices that the devices are in."""
    counts = Counter(getattr(device, "slice_index", 0) for device in devices)
    if config.dcn_data not in (-1, len(counts)):
        raise UserError(
            f"mesh.dcn_data is {config.dcn_data}, but the devices are in {len(counts)} slices or nodes: set it to "
            f"{len(counts)}, or to -1 for as many as there are"
        )
    if len(set(counts.values())) > 1:
        raise UserError(
            f"mesh: the slices or nodes have {', '.join(map(str, counts.values()))} devices: use equal ones"
        )
    check_slices(sizes, len(counts))
    return len(counts)


def check_slices(sizes: tuple[int, int, int], slices: int) -> None:
    """Refuses a mesh that would split weights or examples over the network between slices.

    Raises:
      UserError: `data` does not divide over the slices.
    """
    data, fsdp, tensor = sizes
    if data % slices:
        raise UserError(
            f"mesh: data {data} x fsdp {fsdp} x tensor {tensor} does not divide over {slices} slices or nodes, as fsdp and "
            f"tensor must stay within one: make mesh.data a multiple of {slices}"
        )


def mesh_sizes(config: MeshConfig, devices: int) -> tuple[int, int, int]:
    """Number of devices along data, fsdp and tensor.

    Raises:
      UserError: as in `make_mesh`.
    """
    sizes = [config.data, config.fsdp, config.tensor]
    known = 1
    for size in sizes:
        known *= size if size > 0 else 1
    if sizes.count(-1) == 1 and devices % known == 0:
        sizes[sizes.index(-1)] = devices // known
        known = devices
    if known != devices or min(sizes) < 1:
        asked = f"data {config.data}, fsdp {config.fsdp}, tensor {config.tensor}"
        raise UserError(
            f"mesh: {devices} devices cannot be laid out as {asked}; the axes must multiply to that number, and one may be -1"
        )
    return (sizes[0], sizes[1], sizes[2])
