"""Settings that are one of a few names."""

from collections.abc import Collection

from delrec_jax.errors import UserError


def one_of(key: str, value: str, known: Collection[str]) -> None:
    """Checks a setting.

    Args:
      key: its full key.
      value: what the config says.
      known: the names that it can be.

    Raises:
      UserError: it is none of them.
    """
    if value not in known:
        raise UserError(f"{key} is {value!r}: use one of {', '.join(known)}")
