"""The chips that a run can be planned for: how much of their memory a program gets, and how fast they are.

TPU: `memory` is the advertised size (docs.cloud.google.com/tpu/docs/{v5e,v5p,v6e}); `available` is what XLA's TPU compiler
(libtpu 0.0.42) reports as available when a program is too large.
NVIDIA: `memory` is `device_memory_size` in openxla/xla,
xla/backends/gpu/target_config/specs/{a100_sxm_40,a100_sxm_80,h100_sxm}.txtpb, as are the figures that the compiler needs; JAX
takes 75 % of it unless XLA_CLIENT_MEM_FRACTION says otherwise (docs.jax.dev, "GPU memory allocation").
Speeds are the advertised ones. TPU: the pages above; half of the advertised "bidirectional" bandwidth of the links goes each
way, and the data center network's is that of a pod (v5p: of a chip) divided by its chips. Links close to rings in slices of
16x16 (v5e, v6e) and from 4x4x4 on (v5p). NVIDIA: data sheets of A100 and H100 SXM (without sparsity; NVLink), and one network
adapter per GPU of 200 (DGX A100) or 400 (DGX H100) Gbit/s.
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
class Speed:
    """What one chip does per second at best.

    Attributes:
      operations: of matrix products in bfloat16.
      operations32: of matrix products of float32 arrays at JAX's default precision.
      memory: bytes read or written.
      links: bytes that it receives from chips of its slice or node, over all links.
      outside: bytes that it receives from chips of other slices or nodes.
      dimensions: number of dimensions of the grid of links; 1 = any chip of a node reaches any other at full speed.
      rings: chips from which on links close to rings. In a smaller grid the chips at its corners have half of their links.
      node: chips of a node; 0 = as many as a slice has.
    """

    operations: float
    operations32: float
    memory: float
    links: float
    outside: float
    dimensions: int = 1
    rings: int = 0
    node: int = 0


@dataclass(frozen=True)
class Chip:
    """One accelerator.

    Attributes:
      name: its name for `--chip`.
      title: its name in messages.
      memory: size in bytes.
      available: bytes that a program gets.
      reserve: why a program gets this many.
      speed: what it does per second.
      grids: for a TPU, `TYPE:SHAPE` of each slice by its number of chips.
      gpu: for a GPU, what the compiler must know about it.
    """

    name: str
    title: str
    memory: int
    available: int
    reserve: str
    speed: Speed
    grids: dict[int, str] | None = None
    gpu: Gpu | None = None

    @property
    def most(self) -> int:
        """The most bytes that a program can get: on a GPU, XLA_CLIENT_MEM_FRACTION can raise the default."""
        return int(_GPU_MOST * self.memory) if self.gpu else self.available

    def nodes(self, devices: int) -> int:
        """Number of nodes that so many GPUs are in, which JAX counts as slices; 1 for a TPU."""
        return -(-devices // self.speed.node) if self.speed.node else 1


def _tpu(name: str, memory: float, available: float, grids: dict[int, str], speed: Speed) -> Chip:
    named = {count: f"{name}:{shape}" for count, shape in grids.items()}
    kept = "as XLA's TPU compiler says"
    sizes = int(memory * GIB), int(available * GIB)
    return Chip(name, f"TPU {name}", *sizes, kept, speed, grids=named)


def _gpu(name: str, memory: int, gpu: Gpu, speed: Speed) -> Chip:
    kept = f"JAX takes {_GPU_DEFAULT:.0%} of a GPU unless XLA_CLIENT_MEM_FRACTION says more"
    return Chip(name, gpu.description, memory, int(_GPU_DEFAULT * memory), kept, speed, gpu=gpu)


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
_V5E = Speed(197e12, 197e12, 819e9, links=200e9, outside=3.1e9, dimensions=2, rings=256)
_V5P = Speed(459e12, 459e12, 2765e9, links=600e9, outside=6.25e9, dimensions=3, rings=64)
_V6E = Speed(918e12, 918e12, 1600e9, links=400e9, outside=12.5e9, dimensions=2, rings=256)
_FAST_A100 = Speed(312e12, 156e12, _A100.bandwidth, links=300e9, outside=25e9, node=8)
_FAST_H100 = Speed(989e12, 494e12, _H100.bandwidth, links=450e9, outside=50e9, node=8)
_CHIPS = (
    _tpu("v5e", 16, 15.75, _FLAT, _V5E),
    _tpu("v5p", 95.74, 95.74, _CUBES, _V5P),
    _tpu("v6e", 32, 31.25, _FLAT, _V6E),
    _gpu("a100-40", 42331013120, _A100, _FAST_A100),
    _gpu("a100-80", 85100068864, _LARGER_A100, replace(_FAST_A100, memory=_LARGER_A100.bandwidth)),
    _gpu("h100", 84942979072, _H100, _FAST_H100),
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
