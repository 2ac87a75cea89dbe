"""What a finished run shows on the terminal: one table, a sentence about it, short extras, and where the rest is."""

import pytest

from delrec_jax.analysis import terminal
from delrec_jax.analysis.blocks import Block, Cell, Line, result_blocks


def row(system, protocol, value, *, metric="HR@1", users=40):
    names = {"corpus": "shop", "split": "leave_one_out", "protocol": protocol, "system": system}
    values = {"value": value, "ci_low": value, "ci_high": value, "users": users}
    return {
        **names,
        "teacher": "sasrec",
        "seed": 0,
        "step": -1,
        "beside": "",
        "metric": metric,
        **values,
    }


def rows(protocol="full", cold=True):
    found = [row("popularity", "full", 0.1), row("teacher", "full", 0.4)]
    found += [row(name, protocol, value) for name, value in (("teacher", 0.4), ("delrec", 0.5))]
    found += [row("delrec", "sampled-8", 0.7), row("teacher", "sampled-8", 0.6)]
    for part, users, teacher, delrec in (("warm", 30, 0.61, 0.54), ("cold", 10, 0.0, 0.41)):
        if cold or part == "warm":
            found += [row("teacher", f"{protocol}@{part}", teacher, users=users)]
            found += [row("delrec", f"{protocol}@{part}", delrec, users=users)]
    return found


def test_one_table_is_printed_with_where_the_gain_comes_from(tmp_path, capsys):
    tables = result_blocks(rows())
    note = terminal.seen_and_unseen(rows(), "full")
    more = Block("Agreement", "12 users", ("Prompt", "top-1"), (Line("", "none", (Cell("0.1"),)),))
    terminal.print_report(tables, [more], tmp_path / "index.html", note)
    lines = [line.strip() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert [line for line in lines if " · " in line] == ["shop · leave_one_out · full"]
    assert note == (
        "HR@1 by target, seen in training (30 users): Teacher 0.610, DELRec 0.540; never seen in training (10 users): "
        "Teacher 0.000, DELRec 0.410."
    )
    assert lines.index(note) < lines.index("Agreement")
    assert lines[-2:] == [
        f"{len(tables) - 1} more tables: {tmp_path / 'tables.md'}",
        f"report: {tmp_path / 'index.html'}",
    ]
    assert len(tables) == 4


@pytest.mark.parametrize(("protocol", "cold"), [("full", False), ("sampled-8", True)])
def test_no_sentence_where_there_is_nothing_to_compare(protocol, cold):
    assert terminal.seen_and_unseen(rows(cold=cold), protocol) == ""


def test_the_main_table_is_the_first_with_the_method_itself():
    few = [one for one in rows("sampled-8") if "@" not in one["protocol"]]
    found = terminal.main_table(result_blocks([*few, row("popularity", "sampled-8", 0.1)]))
    assert found.title == "shop · leave_one_out · sampled-8"
