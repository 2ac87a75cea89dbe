"""Devices to plan for: fake ones on this CPU, or descriptions of real ones that XLA can compile for without having them."""

import os
from typing import Any

import jax
from jax.experimental import topologies

from delrec_jax.errors import UserError, one_line
from delrec_jax.planning.chips import Chip, Gpu

# By default libtpu asks the cloud which machine this is, and refuses to load while another process uses it. A plan only
# compiles.
_QUIET_TPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-1",
}


def fake_devices(count: int) -> list[Any]:
    """Splits this CPU into `count` devices, the only ones that JAX then sees: no accelerator is touched.

    Raises:
      UserError: `count` is less than one.
      RuntimeError: JAX has already started its devices.
    """
    if count < 1:
        raise UserError(f"--devices={count}: give the total number of devices, such as 8")
    _stay_on_cpu()
    jax.config.update("jax_num_cpu_devices", count)
    return jax.devices()


def chip_devices(chip: Chip, count: int) -> list[Any]:
    """Returns descriptions of chips that can only be compiled for. JAX itself stays on the CPU.

    Raises:
      UserError: there is no such slice, or the compiler is not installed.
    """
    _stay_on_cpu()
    package = "tpu" if chip.grids else "cuda"
    try:
        devices = _tpu_devices(chip, count) if chip.grids else _gpu_devices(chip, count)
    except (RuntimeError, NotImplementedError) as error:
        reason = one_line(error, most=200)
        raise UserError(
            f"--compile=chip: XLA's compiler for {chip.title} cannot be used ({reason}); install the extra [{package}], which "
            "compiles without such a chip, or use --compile=cpu"
        ) from error
    return list(devices)[:count]


def _stay_on_cpu() -> None:
    jax.config.update("jax_platforms", "cpu")


def compiler_options(chip: Chip) -> dict[str, Any]:
    """Returns XLA's options for a chip: on a GPU, cuBLAS multiplies matrices, as Triton cannot be tuned without that GPU."""
    return {"xla_gpu_enable_triton_gemm": False} if chip.gpu else {}


def _tpu_devices(chip: Chip, count: int) -> Any:
    grids = chip.grids or {}
    # One or two chips are compiled for as a part of the smallest slice that the compiler knows.
    if (whole := max(count, min(grids))) not in grids:
        raise UserError(
            f"--devices={count}: {chip.title} has slices of {', '.join(map(str, grids))} chips; use one of these, or "
            "--compile=cpu"
        )
    for name, value in _QUIET_TPU.items():
        os.environ.setdefault(name, value)
    return topologies.get_topology_desc(grids[whole], "tpu").devices


def _gpu_devices(chip: Chip, count: int) -> Any:
    target = _target(chip.gpu, chip.memory) if chip.gpu else ""
    return topologies.get_topology_desc(
        chip.name, "cuda", topology=f"1x1x{count}", target_config=target
    ).devices


def _target(gpu: Gpu, memory: int) -> str:
    """Returns the text form of `GpuTargetConfigProto`; values that all of these GPUs share are written as literals."""
    return f"""
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  threads_per_core_limit: 2048
  shared_memory_per_block: 49152
  shared_memory_per_core: {gpu.shared_memory}
  shared_memory_per_block_optin: {gpu.shared_memory_of_block}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  core_count: {gpu.cores}
  fpus_per_core: {gpu.fpus_per_core}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: {gpu.bandwidth}
  l2_cache_size: {gpu.cache}
  clock_rate_ghz: {gpu.clock_ghz}
  device_memory_size: {memory}
  cuda_compute_capability {{ major: {gpu.capability} }}
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 }}
device_description_str: "{gpu.description}"
"""
