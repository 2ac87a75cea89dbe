"""500 damaged files, and for each the right answer: an error with its place, a counted drop, or no difference."""

from pathlib import Path

import numpy as np
import pytest
from damage import DAMAGES, FORMS, SAME, USERS, Case, Counted, Error, Form, healthy, text

from delrec_jax.data.corpora.atomic import UNFINISHED_INTER
from delrec_jax.data.corpora.tables import RulesConfig, make_corpus
from delrec_jax.data.interactions import fingerprint
from delrec_jax.errors import UserError

REPEATS = 6
CASES = [
    (form, which, damage, number)
    for damage in DAMAGES
    for form in FORMS
    for which in (0, 1)
    for number in range(REPEATS)
]


def write(form: Form, folder: Path, contents) -> None:
    folder.mkdir(parents=True)
    for name, content in zip(form.files, contents, strict=True):
        if content is not ...:
            data = content if isinstance(content, bytes) else content.encode()
            (folder / name).write_bytes(data)


def corpus_of(form: Form, folder: Path):
    return make_corpus(form.read(folder), RulesConfig(min_length=3))


def reasons(corpus):
    return {reason: count for reason, count in corpus.dropped.items() if count}


@pytest.fixture(scope="module")
def prints(tmp_path_factory):
    """The fingerprint of each undamaged corpus."""
    found = {}
    for form in FORMS:
        folder = tmp_path_factory.mktemp("good") / "shop"
        write(form, folder, [text(form, rows) for rows in healthy(form)])
        corpus = corpus_of(form, folder)
        assert reasons(corpus) == {}
        assert len(corpus.interactions.items) == 5 * USERS
        found[form.name] = fingerprint(corpus)
    return found


def damaged(form, which, damage, number, folder):
    """Writes one damaged corpus and returns the right answer."""
    pair = healthy(form)
    seed = [number, which, FORMS.index(form), *damage.__name__.encode()]
    case = Case(form, which, pair[which], np.random.default_rng(seed))
    content, answer = damage(case)
    contents = [text(form, rows) for rows in pair]
    if content is not None:
        contents[which] = content
    write(form, folder, contents)
    return answer


def check(form, which, answer, folder, good) -> None:
    try:
        corpus = corpus_of(form, folder)
    except UserError as error:
        message = str(error)
        assert isinstance(answer, Error) or answer is None, message
        assert "\n" not in message and len(message) < 1000
        nothing_left = message.startswith("corpus shop: no interaction is left of ")
        assert form.files[which] in message or nothing_left
        if answer is not None and answer.line is not None:
            assert f"{form.files[which]}, line {answer.line}" in message
        return
    found = reasons(corpus)
    left_out = sum(
        count
        for reason, count in found.items()
        if reason.startswith("interactions: ") and reason != UNFINISHED_INTER
    )
    rows = (
        len((folder / form.files[0]).read_bytes().replace(b"\r", b"").strip(b"\n").split(b"\n")) - 1
    )
    assert len(corpus.interactions.items) == rows - left_out  # every row is kept or counted
    if answer is None:  # cut anywhere: never silent
        assert found
        return
    assert isinstance(answer, Counted), f"no error, dropped {found}"
    assert found == answer.reasons
    if answer == SAME:
        assert fingerprint(corpus) == good


def test_there_are_500_damaged_files():
    assert len(CASES) >= 500
    assert len(DAMAGES) >= 35


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damage_is_named_counted_or_harmless(damage, tmp_path, prints):
    for form, which, kind, number in CASES:
        if kind is not damage:
            continue
        folder = tmp_path / f"{form.name}-{which}-{number}" / "shop"
        answer = damaged(form, which, damage, number, folder)
        try:
            check(form, which, answer, folder, prints[form.name])
        except AssertionError as error:
            raise AssertionError(f"{form.name}, file {which}, {number}: {error}") from error
