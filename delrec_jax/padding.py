"""What fills rows up to one length: whatever makes padding, and whatever masks it, must mean the same number."""

PAD_TOKEN = 0
"""Fills texts on the right: `<pad>`, with which decoders also start."""

PAD_ITEM = -1
"""Fills histories on the left, and stands for unknown items; item indices are 0..I-1."""
