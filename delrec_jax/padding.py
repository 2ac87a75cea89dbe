"""The values that pad rows to one length or end a text: code that writes and code that reads them must use the same ones."""

PAD_TOKEN = 0
"""Pads texts on the right: `<pad>`, which is also the first input of decoders."""

END_TOKEN = 1
"""Ends texts: `</s>`."""

PAD_ITEM = -1
"""Pads histories on the left, and stands for unknown items; item indices are 0..I-1."""
