"""What fills rows up to one length: whatever makes padding, and whatever masks it, must mean the same number."""

PAD_TOKEN = 0
"""Fills texts on the right: T5's `<pad>`, which its decoder also starts with."""

PAD_ITEM = -1
"""Fills histories on the left, and stands for unknown items; item indices are 0..I-1."""
