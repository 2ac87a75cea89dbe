"""The preference parser's pool against the mean of PyTorch T5EncoderModel's states over the attention mask."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed here: run `make parity`")
transformers = pytest.importorskip("transformers", reason="transformers is not installed here")

from torch_t5 import TINY, TINY_V10, our_params, torch_t5  # noqa: E402

from delrec_jax.language.t5_model import T5Model  # noqa: E402
from delrec_jax.p2rec.preference_parser import PreferenceParser  # noqa: E402

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("config", [TINY, TINY_V10], ids=["v1.1", "v1.0"])
def test_pooled(config):
    model = torch_t5(config)
    encoder = transformers.T5EncoderModel(model.config).eval()
    unmatched = encoder.load_state_dict(model.state_dict(), strict=False)
    assert not unmatched.missing_keys
    generator = np.random.default_rng(0)
    ids = generator.integers(2, config.vocab_size, (4, 150))
    for row, length in enumerate((150, 129, 40, 1)):
        ids[row, length:] = 0
    mask = torch.tensor(ids != 0)
    with torch.no_grad():
        states = encoder(input_ids=torch.tensor(ids), attention_mask=mask).last_hidden_state
    weights = mask[..., None].float()
    theirs = ((states * weights).sum(1) / weights.sum(1)).numpy()
    assert np.abs(theirs).max() > 0.1
    ours = PreferenceParser(T5Model(config)).pooled(our_params(model), ids)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
