import json

from delrec_jax.training import writers
from delrec_jax.training.writers import MetricsFile, ProgressBar


def test_rows_after_the_checkpoint_are_dropped(tmp_path):
    path = tmp_path / "run" / "metrics.jsonl"
    log = MetricsFile(path)
    for step in range(3):
        log.write({"step": step})
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [0, 1, 2]
    again = MetricsFile(path, [{"step": 0}])
    again.write({"step": 1, "loss": 0.5})
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert rows == again.rows == [{"step": 0}, {"step": 1, "loss": 0.5}]


def test_plain_lines_off_a_terminal_every_ten_seconds(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr(writers.time, "monotonic", lambda: now[0])
    with ProgressBar("prompt", 50) as bar:
        bar.update(1, "loss 9")
        now[0] += 11
        bar.update(2, "loss 8")
        bar.update(3, "loss 7")
    assert capsys.readouterr().err == "  prompt: step 2/50  loss 8\n"
