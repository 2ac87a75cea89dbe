"""What a paired test allows one to say, in words: more, less, or that no difference can be shown.

A sentence says "more" or "less" only where the test is significant at 5 % after Holm's correction and the interval leaves out
zero. Everything else is called what it is: a difference that these users do not show.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from delrec_jax.analysis.comparison_blocks import verdict

Row = Mapping[str, Any]
Outcome = Literal["more", "less", "open"]

_MINUS = "\u2212"


@dataclass(frozen=True)
class Claim:
    """One paired test, to be told.

    Attributes:
      test: a dict of `evaluation.significance.Comparison`.
      reference: the mean of what it was compared with.
      digits: decimals of every number but the p-value.
    """

    test: Row
    reference: float
    digits: int

    @property
    def outcome(self) -> Outcome:
        """What the test shows of the system against its reference."""
        low, high = self.test["ci_low"], self.test["ci_high"]
        if verdict(self.test) == "tie" or low <= 0 <= high:
            return "open"
        return "more" if self.test["difference"] > 0 else "less"

    @property
    def size(self) -> str:
        """The difference without its sign, for a sentence that says "more" or "less"."""
        return self.number(abs(self.test["difference"]))

    @property
    def evidence(self) -> str:
        """Interval and p-value in parentheses; where nothing is shown, the difference with its sign too."""
        ends = (self.test["ci_low"], self.test["ci_high"])
        if ends == (0, 0):
            return "(every resample of the users gives the same for both)"
        if self.outcome == "open":
            low, high = map(self._signed, ends)
            told = f"difference {self._signed(self.test['difference'])}, "
        else:
            low, high = map(self.number, sorted(map(abs, ends)))
            told = ""
        return f"({told}95\u00a0% interval {low} to {high}, {self._p})"

    def number(self, value: float) -> str:
        """A value with the digits of this claim."""
        return f"{value:.{self.digits}f}"

    def against(self, name: str) -> str:
        """The end of a sentence on the system: what it has more or less than a reference, or that nothing can be shown."""
        if self.outcome == "open":
            reference = self.number(self.reference)
            comma = "," if ", " in name else ""  # closes an apposition
            return f"no difference from {name} ({reference}){comma} can be shown {self.evidence}"
        return f"{self.size} {self.outcome} than {name} {self.evidence}"

    def between(self, name: str, other: str) -> str:
        """A sentence on what the system has more or less than a reference, without its period."""
        if self.outcome == "open":
            reference = self.number(self.reference)
            return f"Between {name} and {other} ({reference}) no difference can be shown {self.evidence}"
        return f"{name} has {self.against(other)}"

    def turned(self, name: str) -> str:
        """The end of a sentence on the reference: what it has more or less than the system."""
        if self.outcome == "open":
            return f"no difference from {name} can be shown {self.evidence}"
        opposite = "less" if self.outcome == "more" else "more"
        return f"{self.size} {opposite} than {name} {self.evidence}"

    @property
    def _p(self) -> str:
        p = self.test["p_adjusted"]
        return "p\u00a0<\u00a00.001" if p < 0.001 else f"p\u00a0=\u00a0{p:.3f}"

    def _signed(self, value: float) -> str:
        text = f"{value:+.{self.digits}f}"
        return text.replace("-", _MINUS)
