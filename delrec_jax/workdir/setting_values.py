"""Values of a config as a tree of dictionaries, by dotted keys, and the user's own files that it names."""

from typing import Any

from delrec_jax.plugins import source_hash


def own_parts(settings: Any) -> dict[str, str]:
    """Maps each setting that names a part of the user's own (`FILE.py:NAME`) to the SHA-256 of its file."""
    if isinstance(settings, dict | list):
        parts = settings.values() if isinstance(settings, dict) else settings
        found = [own_parts(value) for value in parts]
        return {name: digest for part in found for name, digest in part.items()}
    digest = source_hash(settings) if isinstance(settings, str) else ""
    return {settings: digest} if digest else {}


def value_at(settings: dict[str, Any], dotted: str) -> Any:
    """Returns the value of a dotted key, or the names of a section's keys for `SECTION.*`; None if there is none."""
    value: Any = settings
    for name in dotted.split("."):
        if name == "*":
            return sorted(value)
        value = value.get(name) if isinstance(value, dict) else None
    return value
