"""Kernels in 8 bits against PyTorch's own quantization per channel, and products with them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from delrec_jax.language.quantised import quantise, scaled_product

torch = pytest.importorskip("torch", reason="torch is not installed here: run `make parity`")

pytestmark = pytest.mark.parity


def test_kernels_and_products_are_those_of_torch():
    rng = np.random.default_rng(0)
    kernel, x = rng.normal(size=(96, 40)).astype("f4"), rng.normal(size=(7, 96)).astype("f4")
    home = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    held = quantise(
        {"q": {"kernel": jnp.array(kernel)}}, (), {"q": {"kernel": home, "scale": home}}
    )
    scale = torch.from_numpy(np.abs(kernel).max(0) / np.float32(127))
    theirs = torch.quantize_per_channel(
        torch.from_numpy(kernel), scale, torch.zeros(40, dtype=torch.int64), 1, torch.qint8
    )
    # PyTorch multiplies by 1 / scale, so a value between two integers may fall to the other side.
    apart = theirs.int_repr().numpy().astype(int) - np.asarray(held["q"]["kernel"], int)
    assert (apart != 0).mean() < 1e-3 and np.abs(apart).max() <= 1
    ours = scaled_product(jnp.asarray(x), held["q"]["kernel"], held["q"]["scale"])
    expected = torch.from_numpy(x) @ theirs.dequantize()
    np.testing.assert_allclose(ours, expected, atol=0.05 * float(expected.std()))
