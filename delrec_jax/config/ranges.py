"""Which numbers and names each setting may have, by patterns of its dotted key.

What depends on other settings is checked by the dataclasses. Here is what holds of a value alone, so that no key is forgotten:
every number is finite and not negative, and fits into the 32 bits that it is computed in, unless a line below says otherwise.
"""

import math
import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from delrec_jax.config.tree import leaf_values
from delrec_jax.data.corpora.data_config import CORPORA, REPEATS, TIME_TIES
from delrec_jax.data.templates import DOMAINS
from delrec_jax.errors import UserError
from delrec_jax.language.soft_prompt import INITS

_LARGEST = {int: 2**31 - 1, float: 1e30}
_LONGEST = 4096  # characters of a text: a path, or the words of a prompt
_INTERVAL = re.compile(r"([\[(])(\S+), (\S+)([\])])")

# The first pattern that matches counts; "..." is the largest number.
_RANGES: Mapping[str, str] = {
    "mesh.*": "[-1, ...]",
    "distributed.process_id": "[-1, ...]",
    "lm.embedding.recent_weight": "[-1e30, 1e30]",
    "*.dropout": "[0, 1)",
    "*.dropout_rate": "[0, 1)",
    "*.layer_norm_eps*": "(0, 1)",
    "*.optimizer.b?": "[0, 1)",
    "*.optimizer.learning_rate": "(0, ...]",
    "pretrain.gate.*": "[0, 1]",
    "pretrain.text.no_instruction": "[0, 1]",
    "pretrain.text.mask_rate": "[0, 1]",
    "pretrain.text.heldout_items": "[0, 1)",
    "pretrain.text.short_first": "[0, ...]",
    "pretrain.text.queries": "[1, ...]",
    "pretrain.text.*window": "[1, ...]",
    "pretrain.text.history": "[1, ...]",
    "pretrain.text.batch_tokens": "[1, ...]",
    "distill.exam_users": "[0, ...]",
    "distill.*_users": "[0, 1)",
    "data.storefront.cold_share": "[0, 1)",
    "data.storefront.*_seed": "[0, ...]",
    "data.storefront.*_share": "[0, 1]",
    "data.storefront.collector": "[0, 1]",
    "data.storefront.wanderer": "[0, 1]",
    "data.storefront.uniform": "[0, 1]",
    "data.storefront.zipf": "[0, 100]",
    "data.storefront.mean_extra": "[0, 1e6]",
    "data.storefront.*": "[1, ...]",
    "lm.*.relative_attention_num_buckets": "[4, ...]",
    "lm.*.relative_attention_max_distance": "[4, ...]",
    "lm.vocab_size": "[1, ...]",
    "lm.sentinels": "[1, ...]",
    "lm.t5.num_decoder_layers": "[0, ...]",
    **{
        f"lm.{family}.{kind}": "[1, ...]"
        for family in ("t5", "bert")
        for kind in ("*num_*", "*_size", "d_*", "max_*")
    },
    "prompts.max_tokens": "[1, ...]",
    "prompts.ta_example": "[3, ...]",
    "teacher.caser.heights": "[1, ...]",
}

_CHOICES: Mapping[str, tuple[str, ...]] = {
    "data.corpus": CORPORA,
    "data.domain": tuple(DOMAINS),
    "data.repeats": REPEATS,
    "data.time_ties": TIME_TIES,
    "distill.init": INITS,
}


class _Interval(NamedTuple):
    """The numbers from `low` to `high`; round brackets leave out the end."""

    low: float
    high: float
    opens: str
    closes: str

    def holds(self, value: float) -> bool:
        """Whether a number is in it."""
        above = value > self.low if self.opens == "(" else value >= self.low
        return above and (value < self.high if self.closes == ")" else value <= self.high)


def check_ranges(settings: Mapping[str, Any]) -> None:
    """Checks each value of a nested dictionary alone; values of a wrong type are left to `tree.build`.

    Raises:
      UserError: a number is outside the range of its key, a text is none of its choices or too long to be meant.
    """
    for key, value in leaf_values(settings).items():
        for part in _parts(value):
            if isinstance(part, str):
                _check_text(key, part)
            elif isinstance(part, int | float) and not isinstance(part, bool):
                _check_number(key, part)


def _parts(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        for part in value:
            yield from _parts(part)
    else:
        yield value


def _check_number(key: str, value: float) -> None:
    most = f"{_LARGEST[type(value)]:g}" if isinstance(value, float) else str(_LARGEST[int])
    text = next(
        (found for pattern, found in _RANGES.items() if fnmatchcase(key, pattern)), "[0, ...]"
    )
    text = text.replace("...", most)
    match = _INTERVAL.fullmatch(text)
    assert match is not None
    interval = _Interval(float(match[2]), float(match[3]), match[1], match[4])
    if not math.isfinite(value) or not interval.holds(value):
        raise UserError(f"config.{key} is {value}: it must be a number in {text}")


def _check_text(key: str, value: str) -> None:
    if len(value) > _LONGEST:
        raise UserError(
            f"config.{key} has {len(value)} characters ({value[:40]!r} ...): give at most {_LONGEST}"
        )
    if value.isspace():
        raise UserError(f"config.{key} is {value!r}: give it a name, or '' for none")
    if not value.isprintable() and key != "distill.init_text":
        raise UserError(
            f"config.{key} is {value!r}, which has characters that cannot be seen: remove them"
        )
    if key in _CHOICES and value not in _CHOICES[key]:
        raise UserError(f"config.{key} is {value!r}: use one of {', '.join(_CHOICES[key])}")
