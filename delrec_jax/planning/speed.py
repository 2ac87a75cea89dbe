"""Seconds per step and expected MFU of each stage on a chip, by formula.

    computing      = operations / (devices x 0.76 x peak) + traffic / (0.675 x memory bandwidth)
    traffic        = 2.3 x passes x all blocks + 2 x kept + the weights, each time that they are read
    passes         = 1 forward + 2 per backward pass, 3 where blocks are recomputed
    step           = computing + activations + (weights + gradients) - hidden
    hidden         = half of weights + gradients, at most as long as computing
    MFU            = useful operations / (step x devices x peak in bfloat16)

Blocks and `kept` are those of the estimate of memory (`memory`), exchanges those of `exchange`, operations those of `work`.
0.76 and 0.675 are what one H200 reached of its peak in a product of 8192^3 and in a copy; 2.3 is fitted to that GPU's steps
(docs/results/speed_gpu.md). For the 10 steps that were measured on it (`distill` and `tune` of a model of 2.8 billion
parameters, `distill` of one of 77 million, bfloat16, by attention and `remat`) the formula gives 0.80 to 1.19 times the time
(median 0.96). No other chip and no exchange between devices was measured.
"""

from dataclasses import dataclass

from delrec_jax.config import Experiment
from delrec_jax.planning.chips import Chip
from delrec_jax.planning.exchange import Exchange, Grid, backward_passes, exchange_of, weights_read
from delrec_jax.planning.memory import Part, part_of
from delrec_jax.planning.shapes import Assumed
from delrec_jax.planning.work import Work
from delrec_jax.training.task import Task

_PRODUCTS, _MEMORY, _TRAFFIC = 0.76, 0.675, 2.3
_HIDDEN = 0.5


@dataclass(frozen=True)
class StageSpeed:
    """What a step of one stage takes on one kind of chip.

    Attributes:
      stage, chip: their names.
      work: what the step computes.
      computing: seconds of computing.
      exchange: seconds of exchange.
      step: seconds per step.
      mfu: the useful part of the peak.
      texts: texts per second, over all devices together.
    """

    stage: str
    chip: str
    work: Work
    computing: float
    exchange: Exchange
    step: float
    mfu: float
    texts: float


def speed_of(
    experiment: Experiment, planned: Task, work: Work, *, chip: Chip, assumed: Assumed
) -> StageSpeed:
    """Returns the speed of a stage that trains the language model, or trains beside it.

    Args:
      experiment: the config.
      planned: the stage's step; its mesh has as many devices as the run.
      work: what it computes and reads.
      chip: what kind the devices would be.
      assumed: sizes that a corpus would determine.
    """
    devices = planned.layout.mesh.devices.size
    grid = Grid(chip, devices, slices=max(1, experiment.mesh.dcn_data))
    part = part_of(experiment, planned, assumed)
    exchange = exchange_of(planned, part, work, grid)
    computing = _computing(planned, part, work, chip)
    may_hide = exchange.weights + exchange.gradients
    step = computing + exchange.activations + may_hide - min(_HIDDEN * may_hide, computing)
    return StageSpeed(
        stage=planned.stage,
        chip=chip.name,
        work=work,
        computing=computing,
        exchange=exchange,
        step=step,
        mfu=work.useful / (step * devices * chip.speed.operations),
        texts=planned.rows / step,
    )


def _computing(planned: Task, part: Part, work: Work, chip: Chip) -> float:
    """Returns the seconds that one device computes per step."""
    sizes, speed, parts = part.model.sizes, chip.speed, planned.parts
    rows = -(-planned.rows // (parts * planned.layout.ways))
    tokens = planned.batch.ids.shape[1]
    encoder, decoder = part.blocks(rows, tokens)
    blocks = sizes.encoder_blocks * encoder + sizes.decoder_blocks * decoder
    passes = 1 + backward_passes(planned, work) * (3 if work.again else 2)
    traffic = parts * (_TRAFFIC * passes * blocks + 2 * part.kept(rows, tokens))
    traffic += weights_read(planned, work)
    peak = speed.operations32 if sizes.activation_bytes == 4 else speed.operations
    products = work.total / (planned.layout.mesh.devices.size * _PRODUCTS * peak)
    return products + traffic / (_MEMORY * speed.memory)
