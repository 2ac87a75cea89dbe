"""Meshes over several slices, with stand-ins for their devices."""

from dataclasses import dataclass

import jax
import numpy as np
import pytest

from delrec_jax.errors import UserError
from delrec_jax.training.mesh import MeshConfig, device_grid, make_mesh


@dataclass(frozen=True)
class Device:
    """What JAX reads of a device."""

    id: int
    slice_index: int
    coords: tuple[int, int, int]
    platform: str = "tpu"
    device_kind: str = "TPU v5 lite"
    core_on_chip: int = 0
    process_index: int = 0


def devices(*sizes):
    """Slices of 2 x n chips, those of the last slice first."""
    slices = [
        [(number, (place // 2, place % 2, 0)) for place in range(size)]
        for number, size in enumerate(sizes)
    ]
    each = [one for chips in reversed(slices) for one in chips]
    return [Device(count, number, place) for count, (number, place) in enumerate(each)]


@pytest.mark.parametrize("dcn_data", [-1, 2])
@pytest.mark.parametrize(
    ("axes", "shape"),
    [
        ({"data": -1}, (16, 1, 1)),
        ({"data": 2, "fsdp": -1}, (2, 8, 1)),
        ({"data": -1, "fsdp": 2, "tensor": 2}, (4, 2, 2)),
    ],
)
def test_fsdp_and_tensor_stay_within_a_slice(axes, shape, dcn_data):
    grid = device_grid(MeshConfig(**axes, dcn_data=dcn_data), devices(8, 8))
    assert grid.shape == shape
    assert len({device.id for device in grid.flat}) == 16
    slices = np.vectorize(lambda device: device.slice_index)(grid)
    half = shape[0] // 2
    assert (slices[:half] == 0).all() and (slices[half:] == 1).all()


@pytest.mark.parametrize(
    ("config", "sizes", "said"),
    [
        (MeshConfig(dcn_data=4), (8, 8), "mesh.dcn_data is 4, but the devices are in 2 slices"),
        (MeshConfig(dcn_data=1), (8, 8), "set it to 2, or to -1"),
        (MeshConfig(data=1, fsdp=16), (8, 8), "make mesh.data a multiple of 2"),
        (MeshConfig(data=3, fsdp=4), (6, 6), "does not divide over 2 slices"),
        (MeshConfig(), (8, 4), "slices or nodes have 4, 8 devices: use equal ones"),
    ],
)
def test_slices_that_do_not_divide(config, sizes, said):
    with pytest.raises(UserError) as error:
        make_mesh(config, devices(*sizes))
    assert said in str(error.value)


def test_axes_that_are_not_those_of_the_torus():
    trillium = [
        Device(number, 0, (number % 4, number // 4, 0), device_kind="TPU v6 lite")
        for number in range(16)
    ]
    mesh = make_mesh(MeshConfig(data=8, fsdp=2), trillium)
    assert mesh.devices.shape == (8, 2, 1)
    assert {device.id for device in mesh.devices.flat} == set(range(16))


@pytest.mark.parametrize("dcn_data", [-1, 1])
def test_one_slice_is_as_it_was(dcn_data):
    mesh = make_mesh(MeshConfig(dcn_data=dcn_data))
    assert mesh.devices.tolist() == [[[device]] for device in jax.devices()]


@pytest.mark.parametrize("dcn_data", [0, -2])
def test_a_number_of_slices_that_cannot_be(dcn_data):
    with pytest.raises(UserError, match=f"mesh.dcn_data is {dcn_data}: give the number of slices"):
        MeshConfig(dcn_data=dcn_data)
