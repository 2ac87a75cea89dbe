"""The first screen of a report: where all systems stand, and what the paired tests allow one to say of the method.

Sentences are computed from the tests (`claims`): nobody writes them, and they say so when the method loses, when the users do
not show a difference, and when a control that would explain a gain was not run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from delrec_jax.analysis.claims import Claim
from delrec_jax.analysis.labels import base_label
from delrec_jax.evaluation.systems import SIMPLE_BASELINES

Row = Mapping[str, Any]

TUNED_CONTROLS = {
    "lm_tuned_no_prompt": "no prompt",
    "lm_tuned_random_prompt": "a random prompt",
    "lm_tuned_shuffled_prompt": "the prompt of a shuffled teacher",
}
"""DELRec's twins: tuned like it, but with a prompt that holds nothing of the teacher's."""

TRUE_ITEMS = "lm_tuned_true_prompt"
"""DELRec's twin whose prompt learned the items that users took, not the teacher's."""

VECTOR_CONTROLS = {
    "teacher_augmented_untuned_lm": "vectors of the untuned language model",
    "teacher_augmented_shuffled_text": "the vectors of other items' titles",
    "teacher_augmented_random_vectors": "random vectors",
}
"""P2Rec's controls: the same recommender with vectors that cannot help as P2Rec's are meant to."""


@dataclass(frozen=True)
class Headline:
    """What the first screen is computed from; `report/headline.json` holds the same.

    Attributes:
      metric: such as "NDCG@10".
      protocol: such as "full".
      standings: dicts of `evaluation.standings.Standing`.
      tests: dicts of `evaluation.significance.Comparison`, of the method against everything that the sentences name.
      baseline: the strongest simple baseline; "" if there is none.
      oracle: the expected metric of the best possible recommender; None where the process is unknown.
      recommenders: what each teacher is called.
      method: the system that the report is about.
      digits: decimals.
    """

    metric: str
    protocol: str
    standings: Sequence[Row]
    tests: Sequence[Row]
    method: str
    baseline: str = ""
    oracle: float | None = None
    recommenders: Mapping[str, str] = field(default_factory=dict)
    digits: int = 3

    def sentences(self) -> list[list[str]]:
        """What can be said of each system of the method (P2Rec has one per recommender), the main thing first."""
        own = [row for row in self.standings if row["system"] == self.method]
        tell = self._of_delrec if self.method == "delrec" else self._of_augmented
        return [tell(row) for row in own]

    def small_print(self) -> str:
        """How to read the numbers of the first screen."""
        own = [row for row in self.standings if row["system"] == self.method]
        users = "/".join(str(count) for count in sorted({row["users"] for row in self.standings}))
        seeds = max((row["seeds"] for row in own), default=1)
        trained = "One training seed" if seeds == 1 else f"Means over {seeds} training seeds"
        simple = _listed([base_label(name) for name in SIMPLE_BASELINES if self._has(name)])
        known = self.oracle is not None
        generated = " The corpus is generated: this is no result on real data." if known else ""
        return (
            f"Protocol {self.protocol}, {users} test users. {trained}: intervals and tests are over users and say nothing of "
            f"seeds that were not run. Paired sign-flip tests, p-values corrected by Holm's method.{generated}"
            + (f" Simple baselines, without a language model: {simple}." if simple else "")
        )

    def as_json(self) -> dict[str, Any]:
        """What `report/headline.json` holds: all that is told, and the sentences."""
        return {**asdict(self), "sentences": self.sentences(), "small_print": self.small_print()}

    def _of_delrec(self, own: Row) -> list[str]:
        beside = ", tuned beside the teacher's scores," if own["beside"] else ""
        taught = self._taught()
        name = "its teacher" + (f", {taught}" if taught else "")
        teacher = "teacher_augmented" if self._has("teacher_augmented") else "teacher"
        return [
            *self._lead(own, f"DELRec{beside}", {self.baseline: _BEST, teacher: name}),
            *self._prompts(own),
            *self._true_items(own),
            *([_NOT_TUNED] if own["step"] == 0 else []),
        ]

    def _of_augmented(self, own: Row) -> list[str]:
        plain = self.recommenders.get(own["teacher"], own["teacher"])
        named = {"teacher": f"{plain} alone", self.baseline: _BEST}
        controls = self._claims(own, VECTOR_CONTROLS)
        said = self._lead(own, f"{plain} + P2Rec", named)
        if not controls:
            return [*said, f"No control of {plain} was run: this run cannot tell why it differs."]
        listed = _listed([VECTOR_CONTROLS[name] for name in controls], "or")
        claim, reached = _hardest(controls, VECTOR_CONTROLS)
        so = _doubt(claim, "what P2Rec's vectors say is what counts")
        return [
            *said,
            f"With {listed} in place of P2Rec's, {plain} {reached}: {claim.turned(f'{plain} + P2Rec')}{so}.",
        ]

    def _lead(self, own: Row, name: str, references: Mapping[str, str]) -> list[str]:
        """The value of the method, with its test against the first reference, and a sentence for each other one."""
        value = f"{name} has {own['value']:.{self.digits}f} {self.metric}"
        claims = self._claims(own, references)
        if not claims:
            return [f"{value}; nothing that it could be compared with was ranked."]
        said: list[str] = []
        for system, claim in claims.items():
            phrase = references[system].format(base_label(system))
            if not said:
                joined = "; " if claim.outcome == "open" else ", "
                said.append(f"{value}{joined}{claim.against(phrase)}.")
            else:
                said.append(f"{claim.between(name, phrase)}.")
        return said

    def _prompts(self, own: Row) -> list[str]:
        controls = self._claims(own, TUNED_CONTROLS)
        if not controls:
            return [
                "No control was tuned: this run cannot tell what the distilled prompt contributes."
            ]
        listed = _listed([TUNED_CONTROLS[name] for name in controls], "or")
        claim, reached = _hardest(controls, TUNED_CONTROLS)
        so = _doubt(claim, "the distilled prompt is what counts")
        return [
            f"Tuned alike with {listed} instead, the language model {reached}: {claim.turned('DELRec')}{so}."
        ]

    def _true_items(self, own: Row) -> list[str]:
        claims = self._claims(own, (TRUE_ITEMS,))
        return [
            "With a prompt that learned the users' true next items, not the teacher's, it has "
            f"{claim.number(claim.reference)}: {claim.turned('DELRec')}{_doubt(claim, 'the teacher is needed')}."
            for claim in claims.values()
        ]

    def _claims(self, own: Row, references: Mapping[str, str] | Sequence[str]) -> dict[str, Claim]:
        """The tests of a system against those of the references that it was tested against, in their order."""
        tested = {
            row["reference"]: row
            for row in self.tests
            if (row["system"], row["protocol"], row["metric"])
            == (own["system"], self.protocol, self.metric)
            and row["teacher"] in ("", own["teacher"])
        }
        return {
            name: Claim(tested[name], self._value(name, own["teacher"]), self.digits)
            for name in references
            if name in tested
        }

    def _value(self, system: str, teacher: str) -> float:
        found: float = next(
            row["value"]
            for row in self.standings
            if row["system"] == system and row["teacher"] in ("", teacher)
        )
        return found

    def _has(self, system: str) -> bool:
        return any(row["system"] == system for row in self.standings)

    def _taught(self) -> str:
        named = ", ".join(self.recommenders.values())
        return f"{named} + P2Rec" if named and self._has("teacher_augmented") else named


_BEST = "the best simple baseline, {}"
_NOT_TUNED = "Validation selected step 0 of tuning: its adapters are untrained."


def _listed(names: Sequence[str], last: str = "and") -> str:
    *others, end = names or [""]
    return f"{', '.join(others)} {last} {end}" if others else end


def _hardest(controls: Mapping[str, Claim], names: Mapping[str, str]) -> tuple[Claim, str]:
    """The test that says the least for the method: against the strongest control that it does not beat, if there is one.

    Returns:
      The test, and what the control has.
    """
    control, claim = max(
        controls.items(), key=lambda one: (one[1].outcome != "more", one[1].reference)
    )
    value = claim.number(claim.reference)
    if len(controls) == 1:
        return claim, f"has {value}"
    strongest = claim.reference >= max(one.reference for one in controls.values())
    which = f"at most (with {names[control]})" if strongest else f"with {names[control]}"
    return claim, f"has {value} {which}"


def _doubt(claim: Claim, what: str) -> str:
    """What a test against a control leaves open, unless the method is better."""
    return "" if claim.outcome == "more" else f", so this run does not show that {what}"
