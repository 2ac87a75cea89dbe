"""What a terminal would obey is written out, wherever a title reaches one."""

import unicodedata

import pytest

from delrec_jax.endings import reported
from delrec_jax.errors import UserError
from delrec_jax.printable import printable, terminal
from delrec_jax.serving.printing import recommend
from delrec_jax.training.writers import say

TITLE = "\x1b[2J\x1b]0;owned\x07Heat\u202e\ud800 [red]II[/] [/x] [REC]"
SHOWN = r"\x1b[2J\x1b]0;owned\x07Heat\u202e\ud800 [red]II[/] [/x] [REC]"


def test_every_control_is_written_out_and_all_else_stays():
    everything = [chr(code) for code in range(0x110000)]
    changed = [one for one in everything if printable(one) != one]
    controls = {one for one in everything if unicodedata.category(one) in ("Cc", "Cs", "Zl", "Zp")}
    directions = {one for one in everything if unicodedata.bidirectional(one) in (
        *("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"),
    )}  # fmt: skip
    marks = {"\u200e", "\u200f", "\u061c"}
    assert set(changed) == (controls - {"\n", "\t"}) | directions | marks
    assert printable(TITLE) == SHOWN
    assert printable("Amélie, 千と千尋\n\tÖdipus 🎬") == "Amélie, 千と千尋\n\tÖdipus 🎬"


def test_lines_for_the_person_watching(capsys):
    say(f"  nearest: {TITLE}")
    assert capsys.readouterr().err == f"  nearest: {SHOWN}\n"


def test_errors(capsys):
    with pytest.raises(SystemExit), reported():
        raise UserError(f"--history: the nearest are: {TITLE}")
    assert capsys.readouterr().err == f"delrec: --history: the nearest are: {SHOWN}\n"


class Stub:
    """A recommender of one title."""

    main, listed, systems, titles = "delrec", None, ("delrec", "teacher"), (TITLE,)

    class parts:
        class experiment:
            class teacher:
                name = "sasrec"

    def items(self, titles, place):
        return [0]

    def ranked(self, histories, *, k, system):
        return [([0], [1.0])]


def test_a_reader_who_has_gone_is_not_a_failure():
    with pytest.raises(BrokenPipeError):
        terminal().on_broken_pipe()


def test_a_recommended_title_is_text_and_no_markup(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    recommend(Stub(), "Heat", 1)
    told = capsys.readouterr().out
    assert told.count(SHOWN) == 2 and "\x1b" not in told
