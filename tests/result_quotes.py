"""README.md's sentences that quote results, as templates, and where in `results/` each number stands."""

import json
from dataclasses import dataclass

from delrec_jax.results.provenance import RESULTS


@dataclass(frozen=True)
class Mean:
    """The mean of a system over users and seeds, ranked in the whole catalogue unless `protocol` says otherwise."""

    result: str
    system: str
    teacher: str = ""
    metric: str = "NDCG@10"
    group: str = "all"
    protocol: str = "full"

    def value(self):
        named = {"system": self.system, "teacher": self.teacher, "protocol": self.protocol}
        row = one_row(self.result, "systems", self.group, **named)
        return row[self.metric]["mean"]


@dataclass(frozen=True)
class Difference:
    """A number of a paired test: `difference`, `low` or `high`."""

    result: str
    system: str
    reference: str
    field: str
    metric: str = "NDCG@10"

    def value(self):
        named = {"system": self.system, "reference": self.reference, "metric": self.metric}
        return one_row(self.result, "comparisons", "all", **named)[self.field]


def one_row(result, part, group, **named):
    """The one row of a summary with these values; another count is an error."""
    rows = json.loads((RESULTS / result / "summary.json").read_text())[part]
    wanted = {"protocol": "full", "group": group, **named}
    (row,) = [row for row in rows if all(row[key] == value for key, value in wanted.items())]
    return row


def _minilm(system):
    return Mean("minilm_office", system, "sasrec")


def _shop(system, group):
    teacher = "" if system == "markov" else "sasrec"
    return Mean("storefront", system, teacher, "HR@1", group)


def _test(result, system, reference):
    return [Difference(result, system, reference, one) for one in ("difference", "low", "high")]


def _p2rec(result, teacher):
    systems = ("teacher", "teacher_augmented")
    return [Mean(f"p2rec_{result}", system, teacher) for system in systems]


_ALL = "hybrid(teacher+markov+ease+tfidf)"

QUOTES = {
    "its HR@1 is {:.3f} and the teacher's {:.3f}; on the other targets the teacher has {:.3f}, DELRec {:.3f},": [
        _shop("delrec", "cold"),
        _shop("teacher", "cold"),
        _shop("teacher", "warm"),
        _shop("delrec", "warm"),
    ],
    "has the highest HR@1 here ({:.3f};": [_shop("lm_words", "all")],
    "the frozen encoder from {:.3f} to {:.3f}, where two distilled scalars without a prompt reach {:.3f}, and": [
        *map(_minilm, ("lm_no_prompt", "lm_distilled_prompt", "lm_readout"))
    ],
    "{:.4f} with it, {:.4f} without a prompt (difference {:.4f}, 95 % interval {:.4f} to {:.4f})": [
        _minilm("delrec"),
        _minilm("lm_tuned_no_prompt"),
        *_test("minilm_office", "delrec", "lm_tuned_no_prompt"),
    ],
    "SASRec, the teacher, has {:.3f}; EASE {:.3f}; and the best hybrid there {:.3f},": [
        _minilm("teacher"),
        Mean("minilm_office", "ease"),
        Mean("minilm_office", "hybrid(markov+ease+tfidf)"),
    ],
    "EASE ({:.3f}) and even Markov ({:.3f}) beat SASRec ({:.3f}). Markov, EASE and TF-IDF together reach {:.3f};": [
        Mean("office", "ease"),
        Mean("office", "markov"),
        Mean("office", "teacher", "sasrec"),
        Mean("office", "hybrid(markov+ease+tfidf)"),
    ],
    "sums with CEASE {:.3f} to {:.3f} ([": [
        Mean("office_closed", "hybrid(markov+cease+tfidf)"),
        Mean("office_closed", "hybrid(markov+cease)"),
    ],
    "on Office Products EASE rises from {:.3f} to {:.3f} and SASRec from {:.3f} to {:.3f}, on Beauty EASE from {:.3f} to "
    "{:.3f} and SASRec from {:.3f} to {:.3f}, where": [
        *_p2rec("minilm_office", "ease"),
        *_p2rec("minilm_office", "sasrec"),
        *_p2rec("minilm_beauty_hybrids", "ease"),
        *_p2rec("minilm_beauty", "sasrec"),
    ],
    "the untuned MiniLM has {:.3f} and {:.3f} on Office": [
        Mean("p2rec_minilm_office", "teacher_augmented_untuned_lm", "ease"),
        Mean("p2rec_minilm_office", "teacher_augmented_untuned_lm", "sasrec"),
    ],
    "as many steps as both of DELRec's stages: {:.3f} and {:.3f} in HR@1": [
        Mean("study_tuning_budget", f"{system}/{arm}", "sasrec", "HR@1")
        for system, arm in (("lm_tuned_no_prompt", "free_long"), ("delrec", "full"))
    ],
    "among 20 candidates DELRec is then behind, with [{:.3f} to {:.3f}](docs/results/study_rivals.md)": [
        Mean("study_rivals", f"{system}/{arm}", "sasrec", "HR@1", protocol="sampled-20")
        for system, arm in (("delrec", "full"), ("lm_tuned_no_prompt", "llara_long"))
    ],
    "(CEASE) has {:.3f} and {:.3f}, on Beauty more than SASRec.": [
        Mean("p2rec_minilm_office", "cease"),
        Mean("p2rec_minilm_beauty_hybrids", "cease"),
    ],
    "MiniLM's vectors in CEASE lead words by {:.3f} (": [
        Difference(
            "p2rec_minilm_beauty_hybrids",
            "hybrid(markov+lm_cease+tfidf)",
            "hybrid(markov+cease+tfidf)",
            "difference",
        ),
    ],
    "SASRec in it, {:.4f}, against {:.4f} with the plain one (one seed)": [
        Mean("p2rec_minilm_beauty_hybrids", f"hybrid({one}+markov+cease+tfidf)", "sasrec")
        for one in ("teacher_augmented", "teacher")
    ],
    "(`lm_cease`, {:.3f}), as much as the titles' words do there (`cease`, {:.3f}):": [
        Mean("p2rec_minilm_office", "lm_cease"),
        Mean("p2rec_minilm_office", "cease"),
    ],
    "On MovieLens-100K SASRec ({:.3f}), Markov ({:.3f}) and EASE ({:.3f}) cannot be distinguished; with TF-IDF they "
    "reach {:.3f} together.": [
        Mean("ml100k", "teacher", "sasrec"),
        Mean("ml100k", "markov"),
        Mean("ml100k", "ease"),
        Mean("ml100k", _ALL, "sasrec"),
    ],
    "On Beauty SASRec ({:.3f}) beats each of these, and the four together reach {:.3f};": [
        Mean("beauty", "teacher", "sasrec"),
        Mean("beauty", _ALL, "sasrec"),
    ],
    "NDCG@10 rises from {:.3f} to {:.3f} ({:+.3f} [{:.3f}, {:.3f}], three seeds)": [
        Mean("p2rec_office", "teacher", "sasrec"),
        Mean("p2rec_office", "teacher_augmented", "sasrec"),
        *_test("p2rec_office", "teacher_augmented", "teacher"),
    ],
    "TF-IDF of the same titles beside SASRec gives {:.3f}.": [
        Mean("p2rec_office", "hybrid(teacher+tfidf)", "sasrec")
    ],
    "SASRec on test items ({:+.3f} [{:.3f}, {:.3f}])": _test(
        "p2rec_ml100k", "teacher_augmented", "teacher"
    ),
}


def filled(template, sources):
    """The sentence as README must have it today."""
    return template.format(*(source.value() for source in sources))
