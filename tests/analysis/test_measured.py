"""Tables of measurements: what is shown, and what a file is refused for."""

import json

import pytest

from delrec_jax.errors import UserError
from delrec_jax.results.pages import render

TOLD = {
    "title": "One step",
    "note": "Medians.",
    "columns": ["", "ours"],
    "rows": [["stage 1", "0.50 s"], ["stage 2", "0.7 s"]],
    "command": "python steps.py",
    "commit": "abc1234",
    "machine": "two cores",
    "date": "2026-11-28",
}


def shown(results, **changes):
    told = {key: value for key, value in (TOLD | changes).items() if value != "missing"}
    (results / "measured").mkdir()
    (results / "measured" / "step.json").write_text(json.dumps(told))
    return render("step measured", results)


def test_a_measurement_is_shown_digit_by_digit_with_its_origin(tmp_path):
    assert shown(tmp_path) == (
        "**One step**\n\nMedians.\n\n|  | ours |\n| --- | ---: |\n| stage 1 | 0.50 s |\n| stage 2 | 0.7 s |\n\n"
        "`results/measured/step.json`, 2026-11-28: commit abc1234; two cores; `python steps.py`.\n"
    )


def test_what_nobody_recorded_is_said_and_several_commands_are_a_block(tmp_path):
    text = shown(tmp_path, commit="", command="one\ntwo")
    assert text.endswith("commit not recorded; two cores; commands:\n\n```\none\ntwo\n```\n")
    (tmp_path / "other").mkdir()
    assert "; command not recorded.\n" in shown(tmp_path / "other", command="")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"date": "missing"}, "no key 'date'"),
        ({"commit": "missing"}, "no key 'commit'"),
        ({"dates": "x"}, "no key is called 'dates'"),
        ({"machine": " "}, "machine is ' '; write a text"),
        ({"commit": None}, "commit is None; write a text"),
        ({"rows": []}, r"rows is \[\]; write a list"),
        ({"rows": [["a", "1"], ["b"]]}, r"rows\[1\] has 1 cells, and there are 2 columns"),
        ({"rows": [["a", 0.5]]}, r"rows\[0\] has 0.5; write a text"),
        ({"columns": ["a", "b|c"]}, r"columns has 'b\|c'; write a text"),
        ({"columns": "ab"}, "columns is 'ab'; write a list of texts"),
    ],
)
def test_a_wrong_file_is_refused_with_file_and_key(tmp_path, changes, message):
    with pytest.raises(UserError, match=f"results/measured/step.json: {message}"):
        shown(tmp_path, **changes)


def test_a_name_without_a_file_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"measured/step.json: no such file"):
        render("step measured", tmp_path)
