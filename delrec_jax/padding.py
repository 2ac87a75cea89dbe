"""The values that pad rows to one length: code that pads and code that masks padding must use the same ones."""

PAD_TOKEN = 0
"""Pads texts on the right: `<pad>`, which is also the first input of decoders."""

PAD_ITEM = -1
"""Pads histories on the left, and stands for unknown items; item indices are 0..I-1."""
