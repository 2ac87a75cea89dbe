"""What can be ranked: a system that scores the whole catalogue for the users of validation and of test."""

from typing import Any, Protocol

import numpy as np

from delrec_jax.data.splits import Part


class System(Protocol):
    """A system that scores the whole catalogue; hybrids are made of such systems and are such systems."""

    def scores(self, part: Part, rows: np.ndarray) -> Any:
        """Scores the catalogue for users of a part.

        Args:
          part: `valid` or `test`.
          rows: places [B] in `split.users(part)`.

        Returns:
          [B, I], higher is better; comparable within a row only.
        """
        ...

    def order(self, part: Part) -> np.ndarray | None:
        """Returns all rows of a part in the order in which scoring is fastest; None if it does not matter."""
        ...
