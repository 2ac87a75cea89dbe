"""300 damaged command lines and config files: each is refused in one line with key and remedy, or means the same."""

import broken_settings
import pytest


@pytest.mark.slow
def test_values_of_every_key(fuzz):
    fuzz("values of config keys", 2 * len(broken_settings.settings()), broken_settings.wrong_value)


@pytest.mark.slow
def test_words(fuzz):
    fuzz("flags", 80, broken_settings.wrong_word)


@pytest.mark.slow
def test_config_files(fuzz, tmp_path):
    fuzz("config files", 60, lambda seed, n: broken_settings.wrong_file(seed, n, tmp_path / str(n)))


def test_a_sample(fuzz, tmp_path):
    every = len(broken_settings.settings()) // 24
    fuzz("values", 24, lambda seed, n: broken_settings.wrong_value(seed, every * n), widened=False)
    fuzz("flags", 16, broken_settings.wrong_word, widened=False)
    file = broken_settings.wrong_file
    fuzz("files", 10, lambda seed, n: file(seed, n, tmp_path / str(n)), widened=False)
