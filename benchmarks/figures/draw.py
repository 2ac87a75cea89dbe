"""Draws the figures of README.md and docs/ into docs/figures/.

    python benchmarks/figures/draw.py

The figure of results is drawn from what is stored in `results/`; a test fails where a file is not what this writes.
"""

from pathlib import Path

from findings import findings
from methods import delrec, p2rec

from delrec_jax.files import write_text

FIGURES = {"delrec": delrec, "p2rec": p2rec, "results": findings}
FOLDER = Path(__file__).parents[2] / "docs" / "figures"


def main() -> None:
    """Writes every figure."""
    for name, draw in FIGURES.items():
        write_text(FOLDER / f"{name}.svg", draw().svg())


if __name__ == "__main__":
    main()
