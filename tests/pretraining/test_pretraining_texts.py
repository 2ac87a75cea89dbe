"""Pre-training texts, read back token by token: questions, answers, shapes, and what they never contain."""

import re
from dataclasses import replace
from itertools import pairwise

import chex
import numpy as np
import pytest
from prompt_templates import EVERY

from delrec_jax.data import prompts, split_kinds
from delrec_jax.data.interactions import from_rows
from delrec_jax.data.sequential_recommendation import lsr_ids
from delrec_jax.delrec.pattern_simulating import rps_text
from delrec_jax.errors import UserError
from delrec_jax.pretraining import texts as texts
from delrec_jax.pretraining.batches import answer_width, batch_rows, batch_shapes, make_batch
from delrec_jax.pretraining.texts import Material, PretrainTextConfig

# Tokens: titles of one or two words from 100 and 200 on, behaviours 50.., attribute words 70.., sentinels 990 down.
ITEMS = 30
SENTINELS = [990, 989, 988, 987]
TITLES = [[100 + item] if item % 3 else [100 + item, 200 + item] for item in range(ITEMS)]
MAPS = {
    "next": (np.arange(ITEMS) + 1) % ITEMS,
    "previous": (np.arange(ITEMS) - 1) % ITEMS,
    "double": np.arange(ITEMS) * 2 % ITEMS,
}
WORDS = {"next": [[50], [51, 52]], "previous": [[53]], "double": [[54, 55]]}
BEHAVIOUR = {tuple(phrase): name for name, phrases in WORDS.items() for phrase in phrases}
JOINTS = (np.array([60], np.int32), np.array([61], np.int32))
HEADS = {"genre": ([70, 71], [72]), "colour": ([70, 73], [72])}
VALUES = {
    "genre": [[80 + item % 4] for item in range(ITEMS)],
    "colour": [[90, 91] if item % 5 else [] for item in range(ITEMS)],
}
INSTRUCTED = {"short": texts.short_text, "several": texts.several_text, "full": texts.full_text}
READING = {"recent": texts.recent_text, "cloze": texts.cloze_text}


class Unreadable:
    """A user's rows that must not be looked at."""

    def __getattr__(self, name):
        raise AssertionError(f"a user's row was read: {name}")


def array(ids):
    return np.array(ids, np.int32)


def make(train=None, *, prompt=None, **options):
    """Material with every third item held out, unless `heldout_items` says otherwise."""
    config = PretrainTextConfig(**options)
    token = {f"title {item}": TITLES[item] for item in range(ITEMS)}
    pieces = prompts.tokenise_pieces(
        lambda names: [
            token.get(name) or [hash_word(word) for word in name.split()] for name in names
        ],
        list(token),
        EVERY,
        domain="movies",
        teacher="SASRec",
        sentinel=SENTINELS[0],
        end=[1] if prompt and prompt.end_of_text else [],
        config=prompt or prompts.PromptConfig(),
    )
    heldout = np.arange(ITEMS) % 3 == 0 if config.heldout_items else np.zeros(ITEMS, bool)
    return Material(
        pieces=pieces,
        sentinels=SENTINELS,
        maps=MAPS,
        joints=JOINTS,
        words={name: [array(phrase) for phrase in phrases] for name, phrases in WORDS.items()},
        attribute_heads={name: (array(a), array(b)) for name, (a, b) in HEADS.items()},
        attribute_values={name: [array(v) for v in column] for name, column in VALUES.items()},
        train=Unreadable() if train is None else train,
        heldout=heldout,
        config=config,
    )


def hash_word(word):
    """Template words, far above all other tokens."""
    return 2000 + sum(ord(letter) * 7**place for place, letter in enumerate(word)) % 100_000


def draws(material, draw, count=300):
    for seed in range(count):
        text, questions = draw(material, np.random.default_rng(seed))
        if questions:
            yield text.tolist(), questions


def titles_in(tokens):
    return [token - 100 for token in tokens if 100 <= token < 200]


def instructions(tokens):
    """(sentinel, behaviour) of every instruction that stands outside a template."""
    found = []
    for place in (index for index, token in enumerate(tokens) if token == 60):
        end = tokens.index(61, place)
        found.append((tokens[end + 1], BEHAVIOUR[tuple(tokens[place + 1 : end])]))
    return found


@pytest.mark.parametrize("name", ["short", "several"])
def test_answers_are_what_the_instruction_says_of_the_last_title(name):
    material = make(queries=3, history=5)
    asked = set()
    for tokens, questions in draws(material, INSTRUCTED[name]):
        last = titles_in(tokens)[-1]
        said = instructions(tokens)
        assert [sentinel for sentinel, _ in said] == SENTINELS[: len(questions)]
        assert len({behaviour for _, behaviour in said}) == len(said)
        for (_, behaviour), question in zip(said, questions, strict=True):
            assert question.item == MAPS[behaviour][last]
            assert question.answer.tolist() == TITLES[question.item]
            asked.add(behaviour)
    assert asked == set(MAPS)


def test_a_text_has_at_most_so_many_titles_and_questions():
    material = make(queries=2, history=4, heldout_items=0.0)
    longest = {"short": (2, 1), "several": (4, 2), "full": (4, 2)}
    for name, (titles, queries) in longest.items():
        drawn = list(draws(material, INSTRUCTED[name]))
        assert max(len(titles_in(tokens)) for tokens, _ in drawn) == titles
        assert max(len(questions) for _, questions in drawn) == queries
        for tokens, _ in drawn:
            pairs = zip(tokens, [*tokens[1:], 0], strict=True)
            whole = all(b == a + 100 for a, b in pairs if 100 <= a < 200 and (a - 100) % 3 == 0)
            assert whole, "a title of two words stands half in the text"


def test_full_texts_are_the_templates_with_an_instruction_in_the_prompts_place():
    material = make(queries=3, history=4)
    seen = set()
    for tokens, questions in draws(material, INSTRUCTED["full"]):
        history = titles_in(tokens)
        head = tokens[: tokens.index(60)] if 60 in tokens else tokens
        matches = []
        for task in ("rps", "lsr"):
            for phrase in [(), *BEHAVIOUR]:
                fields = (material.pieces, history)
                whole = {"rps": rps_text, "lsr": lsr_ids}[task]
                if whole(*fields, pattern=array(phrase)).tolist() == head:
                    matches.append((task, phrase))
        ((task, phrase),) = matches
        leads = [MAPS[BEHAVIOUR[phrase]][history[-1]]] if phrase else [
            step[history[-1]] for step in MAPS.values()
        ]  # fmt: skip
        assert questions[0].item in leads
        said = instructions(tokens)
        assert [sentinel for sentinel, _ in said] == SENTINELS[1 : len(questions)]
        for (_, behaviour), question in zip(said, questions[1:], strict=True):
            assert question.item == MAPS[behaviour][history[-1]]
        seen.add((task, bool(phrase)))
    assert len(seen) == 4, "both tasks, with and without instruction"


def test_some_full_texts_have_no_instruction():
    for share in (0.0, 0.5, 1.0):
        material = make(no_instruction=share, queries=1, heldout_items=0.0)
        phrases = [token for phrase in BEHAVIOUR for token in phrase]
        drawn = list(draws(material, INSTRUCTED["full"], 400))
        silent = np.mean([not set(tokens) & set(phrases) for tokens, _ in drawn])
        assert abs(silent - share) < 0.1


@pytest.mark.parametrize("name", list(INSTRUCTED))
def test_heldout_items_are_shown_and_never_an_answer(name):
    material = make()
    shown = set()
    for tokens, questions in draws(material, INSTRUCTED[name], 500):
        assert not any(material.heldout[question.item] for question in questions)
        shown.update(titles_in(tokens))
    assert shown == set(range(ITEMS))


def test_histories_go_on_by_behaviours_or_jump():
    material = make(history=6)
    steps = []
    for tokens, _ in draws(material, INSTRUCTED["several"], 500):
        shown = titles_in(tokens)
        for a, b in pairwise(shown):
            steps.append(any(step[a] == b for step in MAPS.values()))
    assert 0.6 < np.mean(steps) < 0.9


def test_attribute_answers_are_the_items_own_and_what_is_unknown_is_not_asked():
    material = make(queries=3)
    asked = set()
    for tokens, questions in draws(material, texts.attribute_text):
        starts = [place for place, token in enumerate(tokens) if token == 70]
        assert len(starts) == len(questions) <= 3
        parts = zip(starts, [*starts[1:], len(tokens)], questions, SENTINELS, strict=False)
        for start, end, question, sentinel in parts:
            name = {71: "genre", 73: "colour"}[tokens[start + 1]]
            (item,) = titles_in(tokens[start:end])
            assert tokens[start:end] == [*HEADS[name][0], *TITLES[item], 72, sentinel]
            assert question.answer.tolist() == VALUES[name][item] != []
            assert question.item == -1 and not material.heldout[item]
            asked.add((name, item))
    assert len(asked) > 25


def rows(seed=0, users=12):
    """Users whose training, validation and test items are all different sets of items."""
    rng = np.random.default_rng(seed)
    histories = []
    for user in range(users):
        length = 1 + int(rng.integers(0, 10)) if user else 1
        histories.append(array([*rng.permutation(20)[:length], 20 + user % 5, 25 + user % 5]))
    return from_rows(
        [f"u{u}" for u in range(users)], histories, [np.arange(len(h)) for h in histories]
    )


@pytest.fixture
def split():
    return split_kinds.leave_one_out(rows())


@pytest.mark.parametrize("name", list(READING))
def test_cloze_texts_are_windows_of_one_users_training_part_with_the_next_item_asked(split, name):
    window = {"recent": {"recent_window": 3}, "cloze": {"window": 3}}[name]
    material = make(split.train, mask_rate=0.5, queries=3, **window)
    histories = [split.train.history(user).tolist() for user in range(12)]
    windows = {
        (*history[max(0, end - 3) : end], history[end])
        for history in histories
        for end in range(len(history))
    }
    asked_of, masked_counts = set(), set()
    for tokens, questions in draws(material, READING[name], 600):
        answers = dict(zip(SENTINELS, questions, strict=False))
        assert len(questions) <= 3 and tokens[-1] == SENTINELS[0]
        shown = []
        for token in tokens[:-1]:
            if token in answers:
                shown.append(answers[token].item)
            elif 100 <= token < 200:
                shown.append(token - 100)
        assert tokens.count(SENTINELS[0]) == 1
        assert all(q.answer.tolist() == TITLES[q.item] for q in questions)
        assert (*shown, questions[0].item) in windows
        assert all(item < 20 for item in [*shown, questions[0].item]), "a held-back item"
        masked = len(questions) - 1
        assert masked == min(2, round(0.5 * len(shown)))
        assert sum(token in SENTINELS[1:] for token in tokens) == masked
        asked_of.add((*shown, questions[0].item))
        masked_counts.add(masked)
    with_history = {window for window in windows if len(window) > 1}
    assert with_history <= asked_of, "every place of every training part is asked sooner or later"
    assert masked_counts == {0, 1, 2}


@pytest.mark.parametrize("name", list(READING))
def test_cloze_templates_are_those_of_evaluation(split, name):
    material = make(split.train, mask_rate=0.0)
    seen = set()
    for tokens, _ in draws(material, READING[name], 100):
        history = titles_in(tokens)
        made = {
            "rps": rps_text(material.pieces, history, pattern=array([])),
            "lsr": lsr_ids(material.pieces, history, pattern=array([])),
        }
        (task,) = [task for task, text in made.items() if text.tolist() == tokens]
        seen.add(task)
    assert seen == {"rps", "lsr"}


def test_instructed_and_attribute_texts_read_no_users_row():
    material = make(attributes=0.3)
    shapes = batch_shapes(material, max_tokens=200, seed=0)
    assert {shape.name for shape in shapes} == {"short", "several", "full", "attributes"}
    for index in range(30):
        make_batch(material, shapes, 3, index=index, rng=np.random.default_rng(index))
    with pytest.raises(AssertionError, match="row was read"):
        texts.cloze_text(material, np.random.default_rng(0))


def batches(material, count=60, **options):
    shapes = batch_shapes(material, max_tokens=200, seed=0)
    width = answer_width(material)
    for index in range(count):
        yield make_batch(material, shapes, width, index=index, rng=np.random.default_rng(index))


def kind_of(batch, shapes):
    found = (*batch.ids.shape, batch.items.shape[1])
    (name,) = [s.name for s in shapes if (s.rows, s.tokens, s.questions) == found]
    return name


def test_batches_have_the_few_shapes_that_were_announced(split):
    material = make(
        split.train, recent=0.3, recent_window=1, cloze=0.3, history=8, batch_tokens=1000
    )
    shapes = {shape.name: shape for shape in batch_shapes(material, max_tokens=200, seed=0)}
    assert len(shapes) == 6
    seen = {}
    for batch in batches(material):
        shape = shapes[kind_of(batch, shapes.values())]
        assert batch.ids.shape == (shape.rows, shape.tokens)
        assert batch.sentinels.shape == batch.items.shape == (shape.rows, shape.questions)
        assert batch.answers.shape == (shape.rows, shape.questions, 2)
        assert shape.rows % 8 == 0 and shape.rows * shape.tokens <= 1000 and shape.tokens % 8 == 0
        seen[shape.name] = shape
        used = batch.sentinels > 0
        assert used[:, 0].all(), "every text asks something"
        assert ((batch.items >= 0) <= used).all() and ((batch.answers > 0).any(-1) == used).all()
        for ids, sentinels in zip(batch.ids, batch.sentinels, strict=True):
            asked = set(sentinels[sentinels > 0].tolist())
            assert asked == set(ids.tolist()) & set(SENTINELS)
        for items, answers in zip(batch.items, batch.answers, strict=True):
            for item, answer in zip(items, answers, strict=True):
                if item >= 0:
                    assert answer[answer > 0].tolist() == TITLES[item]
    assert len(seen) == 6
    # Of an item's three ways on, one always leads to a held-out item.
    assert [seen[name].questions for name in ("short", "several", "attributes")] == [1, 2, 4]


def test_kinds_come_in_their_shares():
    material = make(short=0.5, several=0.0, full=0.25, attributes=0.25)
    shapes = batch_shapes(material, max_tokens=200, seed=0)
    names = [kind_of(batch, shapes) for batch in batches(material, 400)]
    for name, share in {"short": 0.5, "full": 0.25, "attributes": 0.25}.items():
        assert abs(np.mean(np.array(names) == name) - share) < 0.08


def test_texts_longer_than_the_limit_are_drawn_again():
    material = make(history=6, short=0.0, full=0.0, attributes=0.0, several=1.0)
    (shape,) = batch_shapes(material, max_tokens=16, seed=0)
    assert shape.tokens == 16
    lengths = [len(tokens) for tokens, _ in draws(material, INSTRUCTED["several"])]
    assert max(lengths) > 16
    batch = make_batch(material, [shape], 2, index=0, rng=np.random.default_rng(0))
    assert batch.ids.shape[1] == 16


def test_texts_that_are_left_out_are_told_and_too_many_refused(capsys):
    material = make(history=6, short=0.0, full=0.0, attributes=0.0, several=1.0)
    batch_shapes(material, max_tokens=200, seed=0)
    assert not capsys.readouterr().err
    batch_shapes(material, max_tokens=16, seed=0)
    lengths = [len(tokens) for tokens, _ in draws(material, INSTRUCTED["several"])]
    told = re.search(
        r"(\d+)% of the pre-training texts of the kind 'several'", capsys.readouterr().err
    )
    assert abs(int(told[1]) / 100 - np.mean(np.array(lengths) > 16)) < 0.15
    with pytest.raises(
        UserError, match=r"prompts\.max_tokens is 4: no pre-training text of the kind"
    ):
        batch_shapes(material, max_tokens=4, seed=0)


@pytest.mark.parametrize("ways", [1, 6, 8, 16])
def test_rows_divide_over_the_devices(ways):
    rows = [batch_rows(PretrainTextConfig(), tokens, ways=ways) for tokens in (24, 96, 512)]
    assert all(count % ways == 0 and count % 8 == 0 for count in rows)
    if 8 % ways == 0:
        assert rows == [168, 40, 8]


def test_the_first_batches_are_short(split):
    material = make(short_first=20)
    shapes = batch_shapes(material, max_tokens=200, seed=0)
    names = [kind_of(batch, shapes) for batch in batches(material, 60)]
    assert set(names[:20]) == {"short"} and len(set(names[20:])) > 1
    reading = make(
        split.train,
        short=0.0,
        several=0.0,
        full=0.0,
        recent=0.5,
        recent_window=1,
        cloze=0.5,
        short_first=20,
    )
    shapes = batch_shapes(reading, max_tokens=200, seed=0)
    names = [kind_of(batch, shapes) for batch in batches(reading, 60)]
    assert set(names[:20]) == {"recent"} and "cloze" in names[20:]


def test_without_short_texts_the_first_batches_are_of_any_kind():
    material = make(short=0.0, short_first=20)
    shapes = batch_shapes(material, max_tokens=200, seed=0)
    assert len({kind_of(batch, shapes) for batch in batches(material, 20)}) > 1


def test_a_batch_follows_from_its_number_and_generator_alone(split):
    material = make(split.train, cloze=0.5)
    shapes = batch_shapes(material, max_tokens=200, seed=0)
    again = batch_shapes(material, max_tokens=200, seed=0)
    assert shapes == again

    def draw(index, seed):
        return make_batch(material, shapes, 2, index=index, rng=np.random.default_rng(seed))

    first = [draw(index, index) for index in range(8)]
    for index in (5, 2, 7, 0):
        chex.assert_trees_all_equal(draw(index, index), first[index])
    other = draw(0, 99).ids
    assert other.shape != first[0].ids.shape or (other != first[0].ids).any()


def test_texts_end_and_begin_as_those_of_the_later_stages(split):
    """With `</s>` once and at the end, and an instruction in the place that the prompt will have."""
    prompt = prompts.PromptConfig(end_of_text=True, pattern_first=True)
    material = make(split.train, prompt=prompt, cloze=0.5, recent=0.5, no_instruction=0.0)
    for batch in batches(material, 40):
        rows = [ids[ids > 0].tolist() for ids in batch.ids]
        assert all(row[-1] == 1 and row.count(1) == 1 for row in rows)
    for tokens, _ in draws(material, texts.full_text, 50):
        instruction = next(place for place, token in enumerate(tokens) if 50 <= token < 60)
        history = next(place for place, token in enumerate(tokens) if 100 <= token < 300)
        assert instruction < history


def test_answers_fit_the_longest_title_or_attribute():
    assert answer_width(make()) == 2
    material = make()
    long = replace(material, attribute_values={"genre": [array([1, 2, 3, 4])]})
    assert answer_width(long) == 4


@pytest.mark.parametrize(
    "shares", [{"short": -0.1}, {"short": 0.0, "several": 0.0, "full": 0.0, "attributes": 0.0}]
)
def test_impossible_shares_are_refused(shares):
    with pytest.raises(UserError, match=r"pretrain\.text"):
        PretrainTextConfig(**shares)
