"""The precision of matrix products whose results are compared or kept, whatever the hardware computes by default."""

import jax

EXACT = jax.lax.Precision.HIGHEST
"""Float32, where a GPU takes TF32 and a TPU bfloat16: of item scores, which are ranked, and of what should equal a constant."""
