"""Where arrays live: a mesh of (data, fsdp, tensor), batches split over its first two axes.

The same step runs on one CPU, eight fake devices or a pod. What trains here (a prompt, adapters, a small teacher) is
replicated; rules that also split weights follow with the larger models.
"""

from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from delrec_jax.errors import UserError


@dataclass(frozen=True)
class MeshConfig:
    """Devices along each axis; -1 (once) takes what is left."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1


def make_mesh(config: MeshConfig) -> Mesh:
    """The mesh over all devices.

    Raises:
      UserError: the axes do not multiply to the number of devices.
    """
    sizes = [config.data, config.fsdp, config.tensor]
    devices = jax.device_count()
    known = 1
    for size in sizes:
        known *= size if size > 0 else 1
    if sizes.count(-1) == 1 and devices % known == 0:
        sizes[sizes.index(-1)] = devices // known
        known = devices
    if known != devices or min(sizes) < 1:
        raise UserError(
            f"mesh {config}: {devices} devices cannot be laid out so; the axes must multiply to it, one may be -1"
        )
    return jax.make_mesh(sizes, ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)


def replicated(mesh: Mesh) -> NamedSharding:
    """A full copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The leading axis split over data and fsdp."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def place_batch(batch: Any, mesh: Mesh) -> Any:
    """Puts a host batch onto the mesh.

    Raises:
      UserError: the batch does not divide over the devices.
    """
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    for leaf in jax.tree.leaves(batch):
        if leaf.shape[0] % ways:
            raise UserError(
                f"a batch of {leaf.shape[0]} rows does not divide over {ways} devices: change the batch size or mesh.data"
            )
    return jax.device_put(batch, batch_sharding(mesh))
