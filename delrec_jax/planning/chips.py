"""The chips that a run can be planned for, and how much of their memory a program gets.

TPU: `memory` is the advertised size (docs.cloud.google.com/tpu/docs/{v5e,v5p,v6e}); `available` is what XLA's TPU compiler
(libtpu 0.0.42) reports as available when a program is too large.
NVIDIA: `memory` is `device_memory_size` in openxla/xla,
xla/backends/gpu/target_config/specs/{a100_sxm_40,a100_sxm_80,h100_sxm}.txtpb, as are the figures that the compiler needs; JAX
takes 75 % of it unless XLA_CLIENT_MEM_FRACTION says otherwise (docs.jax.dev, "GPU memory allocation").
"""

from dataclasses import dataclass, replace

from delrec_jax.errors import UserError

GIB = 2**30
_GPU_DEFAULT, _GPU_MOST = 0.75, 0.92


@dataclass(frozen=True)
class Gpu:
    """What XLA's compiler must know about a GPU to compile for it without having one (`GpuTargetConfigProto`)."""

    description: str
    capability: int
    cores: int
    fpus_per_core: int
    shared_memory: int
    shared_memory_of_block: int
    bandwidth: int
    cache: int
    clock_ghz: float


@dataclass(frozen=True)
class Chip:
    """One accelerator.

    Attributes:
      name: its name for `--chip`.
      title: its name in messages.
      memory: size in bytes.
      available: bytes that a program gets.
      reserve: why a program gets this many.
      grids: for a TPU, `TYPE:SHAPE` of each slice by its number of chips.
      gpu: for a GPU, what the compiler must know about it.
    """

    name: str
    title: str
    memory: int
    available: int
    reserve: str
    grids: dict[int, str] | None = None
    gpu: Gpu | None = None

    @property
    def most(self) -> int:
        """The most bytes that a program can get: on a GPU, XLA_CLIENT_MEM_FRACTION can raise the default."""
        return int(_GPU_MOST * self.memory) if self.gpu else self.available


def _tpu(name: str, title: str, memory: float, available: float, grids: dict[int, str]) -> Chip:
    named = {count: f"{name}:{shape}" for count, shape in grids.items()}
    kept = "as XLA's TPU compiler says"
    return Chip(name, title, int(memory * GIB), int(available * GIB), kept, grids=named)


def _gpu(name: str, memory: int, gpu: Gpu) -> Chip:
    kept = f"JAX takes {_GPU_DEFAULT:.0%} of a GPU unless XLA_CLIENT_MEM_FRACTION says more"
    return Chip(name, gpu.description, memory, int(_GPU_DEFAULT * memory), kept, gpu=gpu)


_FLAT = {
    4: "2x2",
    8: "2x4",
    16: "4x4",
    32: "4x8",
    64: "8x8",
    128: "8x16",
    256: "16x16",
}
_CUBES = {
    4: "2x2x1",
    8: "2x2x2",
    16: "2x2x4",
    32: "2x4x4",
    64: "4x4x4",
    128: "4x4x8",
    256: "4x8x8",
    512: "8x8x8",
    1024: "8x8x16",
}
_A100 = Gpu(
    "NVIDIA A100-SXM4-40GB",
    capability=8,
    cores=108,
    fpus_per_core=64,
    shared_memory=167936,
    shared_memory_of_block=166912,
    bandwidth=1555200000000,
    cache=41943040,
    clock_ghz=1.41,
)
_LARGER_A100 = replace(_A100, description="NVIDIA A100-SXM4-80GB", bandwidth=2039040000000)
_H100 = Gpu(
    "NVIDIA H100 80GB HBM3",
    capability=9,
    cores=132,
    fpus_per_core=128,
    shared_memory=233472,
    shared_memory_of_block=232448,
    bandwidth=3352320000000,
    cache=52428800,
    clock_ghz=1.98,
)
_CHIPS = (
    _tpu("v5e", "TPU v5e", 16, 15.75, _FLAT),
    _tpu("v5p", "TPU v5p", 95.74, 95.74, _CUBES),
    _tpu("v6e", "TPU v6e", 32, 31.25, _FLAT),
    _gpu("a100-40", 42331013120, _A100),
    _gpu("a100-80", 85100068864, _LARGER_A100),
    _gpu("h100", 84942979072, _H100),
)
CHIPS = {chip.name: chip for chip in _CHIPS}


def find_chips(name: str) -> tuple[Chip, ...]:
    """Returns the named chip, or all chips for an empty name.

    Raises:
      UserError: there is no such chip.
    """
    if not name:
        return _CHIPS
    if name not in CHIPS:
        raise UserError(f"--chip={name}: not known; use one of {', '.join(CHIPS)}")
    return (CHIPS[name],)
