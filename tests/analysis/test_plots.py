import os
import re
import subprocess
import sys
from xml.etree import ElementTree

import pytest

from delrec_jax.analysis import plots
from delrec_jax.errors import UserError


def make_all(rows, agreement, log, report_data):
    return {
        "curve": plots.curve_plot(log, key="loss", title="Loss"),
        "bars": plots.metric_bars(rows, metric="HR@1", protocol="full", title="HR@1"),
        "agreement": plots.agreement_bars(agreement, measure="Kendall tau", title="Tau"),
        "ranks": plots.rank_picture(report_data.adapter_ranks, title="Ranks"),
    }


def test_figures_are_deterministic_self_contained_svg(rows, agreement, log, report_data):
    first = make_all(rows, agreement, log, report_data)
    assert first == make_all(rows, agreement, log, report_data)
    for name, svg in first.items():
        assert svg.startswith('<svg role="img" aria-label="'), name
        assert svg.endswith("</svg>"), name
        assert "http" not in svg and "<image" not in svg.replace('<image xlink:href="data:', "")
        ElementTree.fromstring(svg.replace("<svg ", '<svg xmlns:xlink="x" ', 1))


def test_without_a_folder_for_its_settings_matplotlib_is_silent(tmp_path):
    (tmp_path / "file").touch()  # no folder can be made here, by root neither
    done = subprocess.run(
        [sys.executable, "-c", "import delrec_jax.analysis, matplotlib"],
        env={**os.environ, "MPLCONFIGDIR": str(tmp_path / "file" / "settings")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_ids_of_inline_figures_do_not_clash_and_resolve(rows, agreement, log, report_data):
    seen: set[str] = set()
    for name, svg in make_all(rows, agreement, log, report_data).items():
        ids = re.findall(r' id="([^"]+)"', svg)
        assert len(ids) == len(set(ids)), name
        assert not seen & set(ids), name
        seen |= set(ids)
        references = set(re.findall(r'(?:xlink:href="#|url\(#)([^")]+)', svg))
        assert references <= set(ids), name
        assert references, name


def test_figures_say_their_numbers_to_a_screen_reader(rows, agreement, report_data):
    svg = plots.agreement_bars(agreement, measure="Kendall tau", title='A & "B" <i>')
    label = re.search(r'aria-label="([^"]*)"', svg)[1]
    assert label.startswith("A &amp; &quot;B&quot; &lt;i>: no prompt 0.050")
    assert "encoder 0 v 8" in plots.rank_picture(report_data.adapter_ranks, title="R")


def test_curves_choose_runs_and_sort_steps(log):
    chosen = plots.curve_plot(log, key="loss", title="L", runs={"prompt/true": "true items"})
    assert 'for prompt/true"' in chosen
    rewound = plots.curve_plot(log[::-1], key="loss", title="L", runs={"prompt/true": "true items"})
    assert rewound == chosen


def test_one_point_and_dollar_signs_can_be_drawn():
    svg = plots.curve_plot([{"run": "$a", "step": 1, "loss": 2.0}], key="loss", title="$x_1$ y$")
    assert svg.endswith("</svg>")


def test_bars_are_of_the_whole_run_only(rows):
    svg = plots.metric_bars(rows, metric="HR@1", protocol="full", title="t")
    assert svg.split(">")[0].count("delrec ") == 1


def test_missing_inputs_name_themselves(rows, agreement, log):
    with pytest.raises(UserError, match=r"no run logged 'los' \(logged: loss, valid/agreement\)"):
        plots.curve_plot(log, key="los", title="t")
    with pytest.raises(UserError, match="logged: nothing"):
        plots.curve_plot([], key="loss", title="t")
    with pytest.raises(UserError, match="metric 'AUC'"):
        plots.metric_bars(rows, metric="AUC", protocol="full", title="t")
    with pytest.raises(UserError, match="measures 'rho'"):
        plots.agreement_bars(agreement, measure="rho", title="t")
    with pytest.raises(UserError, match="no adapter ranks"):
        plots.rank_picture([], title="t")
