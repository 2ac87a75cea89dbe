"""What stands in the texts of both stages and of evaluation: every text is read back, item by item.

A title is one token here (`FIRST + item`), so a text's tokens say exactly which items it shows; the teacher is a rule
that depends on the whole history, so a list that belongs to another row is seen at once.
"""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import flax.struct
import numpy as np
import pytest
from prompt_templates import EVERY
from tiny_storefront import CONFIG, TINY, delrec, open_workspace

from delrec_jax.data import prompts
from delrec_jax.delrec import distill, prompt_examples, systems, temporal_analysis, tune
from delrec_jax.delrec.agreement import Reading, make_exam
from delrec_jax.delrec.next_item_examples import next_item_examples
from delrec_jax.delrec.prompt_examples import make_examples, make_lists, source_rows
from delrec_jax.delrec.rows import user_parts
from delrec_jax.errors import UserError
from delrec_jax.language.t5_config import T5Config
from delrec_jax.language.t5_model import T5Model, axes_of
from delrec_jax.training.sharding import MeshConfig, make_layout
from delrec_jax.workdir import evaluation, language_scorer, protocols
from delrec_jax.workdir.language_model import Language
from delrec_jax.workdir.prepared import load_data
from delrec_jax.workdir.title_vectors import TitleStore

TA, RPS = 0, 1  # numbers of the paper's tasks
NUM_ITEMS, NUM_USERS = 36, 48
FIRST = 1000
MASK, SLOTS = 999, np.array([997, 998], np.int32)


def items_in(ids):
    """The items that a text shows, in order."""
    return [int(token) - FIRST for token in ids if token >= FIRST]


def teacher_scores(histories):
    """A rule by which order and length of the history matter, with no ties; padding (-1) does not matter."""
    sums = ((histories + 1) * np.arange(1, histories.shape[1] + 1)).sum(1)
    return (sums[:, None] % 210 + 1) * np.arange(1, NUM_ITEMS + 1) % 211 / 10


class OneToken:
    """A tokenizer that `load_data` never asks for and texts do not need."""

    def encode(self, text):
        return []


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("texts") / "run"
    flags = (
        "--config.prompts.max_history=50",
        "--config.prompts.max_tokens=64",
        "--config.distill.tasks.ta.share=0.25",
        "--config.distill.tasks.rps.share=0.75",
    )
    delrec("prepare", CONFIG, f"--workdir={workdir}", *TINY, *flags)
    return open_workspace(workdir)


@pytest.fixture
def ws(prepared, monkeypatch):
    monkeypatch.setattr(distill, "training_source", lambda ws, data: teacher_scores)
    return prepared


@pytest.fixture(scope="module")
def data(prepared):
    return load_data(prepared)


def pieces_of(data, config):
    titles = data.corpus.catalogue.titles
    token = {title: [FIRST + item] for item, title in enumerate(titles)}
    return prompts.tokenise_pieces(
        lambda texts: [token.get(text, [1, 2]) for text in texts],
        titles,
        EVERY,
        domain="items",
        teacher="SASRec",
        sentinel=MASK,
        end=[1] * config.end_of_text,
        config=config,
    )


@pytest.fixture(scope="module")
def language(prepared, data):
    pieces = pieces_of(data, prepared.experiment.prompts)
    params = {"shared": {"embedding": np.zeros((8, 4), np.float32)}}
    model = T5Model(T5Config(vocab_size=8, d_model=4))
    # `favour` and the texts ask no more of it.
    verbalizer = SimpleNamespace(lists_codes=False, encodes_titles=False, distilled=())
    ranker = SimpleNamespace(
        ranks_catalogue=True,
        model=model,
        verbalizer=verbalizer,
        readout=dict,
        title_tokens=np.zeros((NUM_ITEMS, 1), np.int32),
    )
    layout = make_layout(MeshConfig(), axes_of)
    store = TitleStore(Path("none"), "none")
    return Language(OneToken(), ranker, params, pieces, SLOTS, layout, store)  # type: ignore[arg-type]


@pytest.fixture
def runs(ws, data, language, monkeypatch):
    """Name of each stage-1 run -> the texts that it is trained on; held-out users' texts as `heldout`."""
    found = {}

    def fit(self, name, texts):
        found[name] = texts

    def agreement(self, texts):
        found["heldout"] = texts
        return []

    monkeypatch.setattr(distill.PromptTraining, "fit", fit)
    monkeypatch.setattr(distill.PromptTraining, "agreement", agreement)
    ws.folder("distill").mkdir(exist_ok=True)
    distill.distill(ws, data, language)
    return found


def parts_of(ws, data):
    return user_parts(data.split.training_users, ws.experiment.distill, ws.experiment.seed)


def examples(texts, count=60):
    """Examples as training draws them: all rows, several times."""
    for number in range(count):
        index = number % len(texts)
        yield index, texts.example(index, np.random.default_rng(number))


def rps(texts, index):
    """A row's RPS text, its list in random order."""
    task = next(task for task in texts.tasks if task.name == "rps")
    return task.example(texts.material, (), index, np.random.default_rng(index))


def ta_users(texts):
    """Users of whom TA is asked."""
    return [user for task, users in texts.asked if task.name == "ta" for user in users.users]


def history_of(texts, index):
    user, end = int(texts.material.rows.users[index]), int(texts.material.rows.ends[index])
    return texts.material.train.history(user), end


def whole_row(data, user):
    return data.corpus.interactions.history(int(user)).tolist()


def test_rps_shows_the_history_up_to_its_end_and_nothing_after_it(runs):
    for name in ("distilled", "shuffled", "heldout"):
        texts = runs[name]
        for index in range(len(texts)):
            history, end = history_of(texts, index)
            example = rps(texts, index)
            assert example.task == RPS and items_in(example.ids) == history[:end].tolist()
            assert example.ids.tolist().count(MASK) == 1


def listing_all(ws, data, language):
    """An experiment, and a language, whose texts list their candidates, with the teacher's next best after them."""
    shown = replace(ws.experiment.prompts, show_candidates=True, show_ranks=True, max_tokens=512)
    tuned = replace(
        ws.experiment.tune, loss_over="candidates", num_candidates=8, anchor=0.0, valid_users=0
    )
    distilled = replace(ws.experiment.distill, loss_over="candidates")
    changed = replace(ws.experiment, prompts=shown, tune=tuned, distill=distilled)
    return changed, replace(language, pieces=pieces_of(data, shown))


def test_candidates_stand_in_the_text_as_they_are_scored_and_the_label_is_not_told(
    ws, data, language
):
    changed, listing = listing_all(ws, data, language)
    users = np.arange(NUM_USERS)
    rows = source_rows(changed, data.split, users, "teacher")
    lists = make_lists(changed, data.split, NUM_ITEMS, rows, teacher_scores)
    texts = make_examples(changed, data, listing, users, "teacher", lists)
    orders = set()
    for index in range(0, len(texts), 7):
        example, (history, end) = rps(texts, index), history_of(texts, index)
        told = lists.items[index][1 : changed.distill.top_h]  # all of the list but its label
        assert items_in(example.ids) == [*history[:end], *example.candidates, *told]
        orders.add(tuple(np.argsort(example.candidates)))
    assert len(orders) > 5
    labels = next_item_examples(changed, data, listing, pattern=SLOTS)
    true = make_examples(changed, data, listing, users, "true")
    drawn = [example for _, example in examples(texts, 100) if example.task == TA]
    drawn += [example for _, example in examples(true, 20)]
    drawn += [labels.example(index, np.random.default_rng(index)) for index in range(20)]
    for example in drawn:
        assert items_in(example.ids)[-8:] == example.candidates.tolist()


def test_an_exam_asks_the_teacher_about_the_items_that_it_shows(runs):
    texts = runs["heldout"]
    exam, lists = make_exam(texts, SLOTS), texts.material.lists
    assert len(exam.examples) == len(texts)
    for row, example in enumerate(exam.examples):
        given = dict(zip(lists.items[row].tolist(), lists.scores[row].tolist(), strict=True))
        assert exam.labels[row].tolist() == [given[item] for item in example.candidates.tolist()]
        assert exam.labels[row].argmax() == exam.targets[row].argmax()


@pytest.mark.parametrize("source", ["teacher", "true"])
def test_an_exam_has_the_pattern_that_it_is_asked_for(runs, ws, data, language, source):
    lists = runs["distilled"].material.lists if source == "teacher" else None
    users = parts_of(ws, data)["train"]
    texts = make_examples(ws.experiment, data, language, users, source, lists)
    for pattern in (SLOTS, prompts.NO_PATTERN):
        shown = [
            np.isin(example.ids, SLOTS).any() for example in make_exam(texts, pattern).examples
        ]
        assert set(shown) == {len(pattern) > 0}


@pytest.mark.parametrize("select_by", ["agreement", "kendall_tau", "likelihood"])
def test_a_prompt_is_selected_by_its_own_labels_and_the_measure_asked_for(
    ws, data, language, monkeypatch, select_by
):
    seen, trained = [], []
    values = {"agreement": 1.0, "kendall_tau": 2.0, "likelihood": 3.0}
    reading = Reading(**{name: np.full(3, value) for name, value in values.items()})
    config = replace(ws.experiment.distill, select_by=select_by)
    monkeypatch.setattr(ws, "experiment", replace(ws.experiment, distill=config))
    monkeypatch.setattr(
        distill.PromptTraining, "_read", lambda self, _, exam: seen.append(exam) or reading
    )
    monkeypatch.setattr(distill.PromptTraining, "fit", lambda *given: trained.append((*given,)))
    monkeypatch.setattr(distill.PromptTraining, "agreement", lambda self, texts: [])
    ws.folder("distill").mkdir(exist_ok=True)
    distill.distill(ws, data, language)
    for training, name, texts in trained:
        seen.clear()
        found = training._validator(texts)({})
        assert found["valid/selection"] == values[select_by]
        one_hot = set(np.unique(seen[-1].labels)) == {0.0, 1.0}
        assert one_hot == (name == "true") and len(seen) == (1 if name == "distilled" else 2)


def test_rps_rows_are_the_latest_positions_of_the_training_part(runs, ws, data):
    texts, positions = runs["distilled"], ws.experiment.distill.positions
    for user in np.unique(texts.material.rows.users):
        length = len(whole_row(data, user)) - 2
        ends = texts.material.rows.ends[texts.material.rows.users == user]
        assert ends.tolist() == list(range(max(1, length - positions + 1), length + 1))


def test_rps_labels_are_the_teachers_order_for_the_texts_own_history(runs, ws, data):
    texts, length = runs["distilled"], ws.experiment.teacher.max_length
    cold = data.split.cold_items(NUM_ITEMS)
    for index in range(len(texts)):
        history, end = history_of(texts, index)
        padded = np.full((1, length), -1)
        padded[0, max(0, length - end) :] = history[:end][-length:]
        scores = teacher_scores(padded)[0]
        known = [i for i in range(NUM_ITEMS) if not cold[i] and i not in history[:end]]
        best = sorted(known, key=lambda item: -scores[item])[:4]
        items = texts.material.lists.items[index]
        np.testing.assert_allclose(texts.material.lists.scores[index], scores[items], rtol=1e-5)
        assert items[:4].tolist() == best
        example = rps(texts, index)
        assert example.candidates[example.targets.argmax()] == items[scores[items].argmax()]
        assert set(example.candidates) == set(items)


def test_lists_hold_no_item_that_the_teacher_never_saw_or_the_user_has(runs, data):
    trained = {item for user in range(NUM_USERS) for item in whole_row(data, user)[:-2]}
    assert len(trained) < NUM_ITEMS, "the tiny store must have cold items"
    for name in ("distilled", "heldout"):
        texts = runs[name]
        for index, items in enumerate(texts.material.lists.items):
            history, end = history_of(texts, index)
            assert set(items.tolist()) <= trained - set(history[:end].tolist())
            assert len(set(items.tolist())) == 8


def test_no_array_of_all_histories_is_made(ws, data, monkeypatch):
    """Neither of the rows that stage 1 asks about nor of the users whose best items are re-ranked."""
    asked = []

    def fewer_at_once(make):
        def made(score_fn, histories, *, seen, **more):
            asked.extend([histories, seen])
            return make(score_fn, histories, seen=seen, batch_size=7, **more)

        return made

    lists = prompt_examples.distillation_lists
    monkeypatch.setattr(prompt_examples, "distillation_lists", fewer_at_once(lists))
    monkeypatch.setattr(protocols, "top_lists", fewer_at_once(protocols.top_lists))
    rows = source_rows(ws.experiment, data.split, np.arange(NUM_USERS), "teacher")
    make_lists(ws.experiment, data.split, NUM_ITEMS, rows, teacher_scores)
    ranked = protocols.Protocols(ws.experiment, data)
    ranked.add_rerank(teacher_scores)
    assert all(map(callable, asked)) and [len(one) for one in asked] == [
        *(len(rows.users),) * 2,
        *(NUM_USERS,) * 2,
    ]
    length = ws.experiment.teacher.max_length
    for row in (0, 9, len(rows.users) - 1):
        expected = history_of_row(data, rows, row)
        for histories, width in (
            (asked[0](np.array([row])), length),
            (asked[1](np.array([row])), 0),
        ):
            np.testing.assert_array_equal(histories[0][-len(expected) :], expected)
            assert (histories[0][: -len(expected)] == -1).all() and width in (0, len(histories[0]))


def history_of_row(data, rows, row):
    return whole_row(data, rows.users[row])[: rows.ends[row]]


def test_shuffled_lists_are_the_same_lists_in_other_places(runs):
    own, dealt = runs["distilled"], runs["shuffled"]
    np.testing.assert_array_equal(own.material.rows.users, dealt.material.rows.users)
    np.testing.assert_array_equal(own.material.rows.ends, dealt.material.rows.ends)

    def lists(texts):
        pairs = zip(texts.material.lists.items, texts.material.lists.scores, strict=True)
        return [(items.tobytes(), scores.tobytes()) for items, scores in pairs]

    before, after = lists(own), lists(dealt)
    assert sorted(before) == sorted(after)
    assert np.mean([a == b for a, b in zip(before, after, strict=True)]) < 0.1


def test_ta_asks_for_an_item_that_stands_nowhere_in_the_text(runs):
    seen = set()
    for name in ("distilled", "shuffled"):
        texts = runs[name]
        for _, example in examples(texts, 200):
            if example.task == TA:
                label = int(example.candidates[example.targets.argmax()])
                shown = items_in(example.ids)
                assert label not in shown

                def fits(user, texts=texts, shown=shown, label=label):
                    history = texts.material.train.history(user).tolist()
                    place = history.index(label) if label in history[:-1] else -2
                    # The example's gap is told in the text; all items before the asked one are there.
                    return shown[-1:] == history[place + 1 : place + 2] and set(shown) == set(
                        history[: place + 2]
                    ) - {label}

                owner = next(user for user in ta_users(texts) if fits(user))
                seen.add(owner)
    assert len(seen) > 5


def test_ta_is_asked_in_its_share_of_the_texts_and_never_for_true(runs):
    tasks = [example.task for _, example in examples(runs["distilled"], 400)]
    assert 0.17 < np.mean(np.array(tasks) == TA) < 0.33
    assert all(example.task == RPS for _, example in examples(runs["true"], 200))


def test_a_task_that_nobody_can_be_asked_is_named(runs, monkeypatch):
    assert runs["distilled"].unasked() == []
    monkeypatch.setattr(temporal_analysis.TemporalAnalysis, "positions", lambda *_: [])
    assert replace(runs["distilled"]).unasked() == ["ta"]


def test_true_labels_are_the_next_items_of_the_training_part(runs, data):
    texts = runs["true"]
    for index, example in examples(texts, 2 * len(texts)):
        user, end = int(texts.material.rows.users[index]), int(texts.material.rows.ends[index])
        row = whole_row(data, user)
        label = int(example.candidates[example.targets.argmax()])
        assert label == row[end] and end < len(row) - 2
        assert items_in(example.ids) == row[:end]
        assert example.targets.sum() == 1


def test_negatives_are_items_that_the_user_has_not_and_training_has(runs, data):
    trained = {item for user in range(NUM_USERS) for item in whole_row(data, user)[:-2]}
    texts = runs["true"]
    for index, example in examples(texts, 150):
        label = int(example.candidates[example.targets.argmax()])
        negatives = set(example.candidates.tolist()) - {label}
        assert len(negatives) == 7 and negatives <= trained
        assert not negatives & set(whole_row(data, texts.material.rows.users[index])[:-2])
    for _, example in examples(runs["distilled"], 300):
        if example.task == TA:
            shown = set(items_in(example.ids))
            assert not shown & set(example.candidates.tolist())


def test_the_label_stands_at_no_preferred_place(runs):
    for name, task in (("true", RPS), ("distilled", TA), ("distilled", RPS)):
        drawn = (example for _, example in examples(runs[name], 800))
        places = [int(e.targets.argmax()) for e in drawn if e.task == task]
        counts = np.bincount(places, minlength=8)
        assert counts.min() > len(places) / 8 / 3 and counts.max() < len(places) / 8 * 2


def test_heldout_users_are_in_no_training_row(runs, ws, data):
    parts = parts_of(ws, data)
    assert sorted(np.concatenate(list(parts.values()))) == list(range(NUM_USERS))
    heldout, valid = set(parts["heldout"].tolist()), set(parts["valid"].tolist())
    assert set(runs["heldout"].material.rows.users.tolist()) == heldout and heldout and valid
    for name in ("distilled", "shuffled", "true"):
        texts = runs[name]
        used = set(texts.material.rows.users.tolist()) | set(ta_users(texts))
        assert used <= set(parts["train"].tolist()), name


def test_stage_two_tunes_with_the_controls_that_the_config_names(ws, data, language, monkeypatch):
    fitted = []
    monkeypatch.setattr(tune.Tuning, "fit", lambda self, name: fitted.append(name))
    for controls in (("true", "none"), ()):
        config = replace(ws.experiment.tune, controls=controls)
        monkeypatch.setattr(ws, "experiment", replace(ws.experiment, tune=config))
        tune.tune(ws, data, language)
    assert fitted == ["distilled", "true", "none", "distilled"]
    for wrong in (("best",), ("none", "none")):
        with pytest.raises(UserError, match=r"tune\.controls"):
            replace(ws.experiment.tune, controls=wrong)


@pytest.mark.parametrize(
    ("texts", "weights", "name"),
    [
        ({}, "", "lm_no_prompt"),
        ({"recent": 0.1}, "", "lm_supervised"),
        ({"cloze": 1.0}, "", "lm_supervised"),
        ({"recent": 1.0}, "google/flan-t5-small", "lm_no_prompt"),
    ],
)
def test_the_bare_model_is_zero_shot_only_where_no_next_item_was_asked(ws, texts, weights, name):
    base = ws.experiment
    pretrain = replace(base.pretrain, text=replace(base.pretrain.text, **texts))
    changed = replace(base, pretrain=pretrain, lm=replace(base.lm, weights=weights))
    assert systems.bare_name(changed) == name


@pytest.mark.parametrize("pattern", [SLOTS, prompts.NO_PATTERN], ids=["slots", "none"])
@pytest.mark.parametrize("loss_over", ["catalogue", "candidates"])
def test_stage_two_learns_the_next_items_of_the_training_part(
    ws, data, language, loss_over, pattern
):
    config = replace(ws.experiment.tune, loss_over=loss_over, num_candidates=8, anchor=0.0)
    changed = replace(ws.experiment, tune=config)
    labels = next_item_examples(changed, data, language, pattern=pattern)
    assert len(labels) > 200
    for index in range(len(labels)):
        user, end = int(labels.rows.users[index]), int(labels.rows.ends[index])
        row = whole_row(data, user)
        example = labels.example(index, np.random.default_rng(index))
        assert end < len(row) - 2 and items_in(example.ids) == row[:end]
        assert [t for t in example.ids if t in SLOTS] == pattern.tolist()
        if loss_over == "catalogue":
            assert example.label == row[end]
        else:
            candidates = example.candidates.tolist()
            assert candidates[example.targets.argmax()] == row[end]
            assert not (set(candidates) - {row[end]}) & set(row[:-2])


def test_in_every_stage_the_prompt_is_first_and_the_end_last_if_they_are_to_be(ws, data, language):
    config = replace(ws.experiment.prompts, pattern_first=True, end_of_text=True)
    language = replace(language, pieces=pieces_of(data, config))
    users = np.arange(NUM_USERS)
    rows = source_rows(ws.experiment, data.split, users, "teacher")
    lists = make_lists(ws.experiment, data.split, NUM_ITEMS, rows, teacher_scores)
    texts = make_examples(ws.experiment, data, language, users, "teacher", lists)
    drawn = [example for _, example in examples(texts)]
    assert {int(example.task) for example in drawn} == {TA, RPS}
    texts = make_examples(ws.experiment, data, language, users, "true")
    drawn += [example for _, example in examples(texts, 5)]
    labels = next_item_examples(ws.experiment, data, language, pattern=SLOTS)
    drawn += [labels.example(index, np.random.default_rng(index)) for index in range(5)]
    scorer = language_scorer.LanguageScorer(language)
    system = language_scorer.LanguageSystem(SLOTS)
    read = scorer.texts(system, data.split.histories("test")[:5])
    for ids in [*(example.ids for example in drawn), *(row[row > 0] for row in read.ids)]:
        *text, mask, end = ids.tolist()
        assert (mask, end) == (MASK, 1) and MASK not in text
        history = [place for place, token in enumerate(text) if token >= FIRST]
        assert text.index(SLOTS[0]) < text.index(SLOTS[1]) < history[0]


@pytest.mark.parametrize("part", ["valid", "test"])
def test_adapters_are_selected_by_the_validation_item_alone(ws, data, language, monkeypatch, part):
    histories = {tuple(whole_row(data, user)[:-2]): user for user in range(NUM_USERS)}
    asked = []

    def favour(self, system, texts):
        ids = texts.ids
        users = [histories[tuple(items_in(text))] for text in ids]
        asked.extend(users)
        scores = np.zeros((len(ids), NUM_ITEMS), np.float32)
        scores[np.arange(len(ids)), data.split.target(part)[users]] = 1
        return scores

    monkeypatch.setattr(language_scorer.LanguageScorer, "catalogue", favour)
    trainer = tune.Tuning(ws, data, language)
    system = language_scorer.LanguageSystem(SLOTS, np.zeros((2, 4), np.float32))
    found = trainer._validator(system)({})
    assert set(asked) == set(range(NUM_USERS)), "each text shows a user's training part"
    assert (found["valid/HR@1"] == 1) == (found["valid/NDCG@10"] == 1) == (part == "valid")


def test_texts_are_made_of_the_users_who_select_alone(ws, data, language, monkeypatch):
    config = replace(ws.experiment.tune, valid_users=5)
    monkeypatch.setattr(ws, "experiment", replace(ws.experiment, tune=config))
    read, made = [], language_scorer.lsr_text
    monkeypatch.setattr(
        language_scorer, "lsr_text", lambda *given: read.append(given) or made(*given)
    )
    monkeypatch.setattr(
        language_scorer.LanguageScorer,
        "catalogue",
        lambda self, system, texts: np.zeros((len(texts.ids), NUM_ITEMS), np.float32),
    )
    trainer = tune.Tuning(ws, data, language)
    evaluate = trainer._validator(language_scorer.LanguageSystem(SLOTS))
    evaluate({})
    evaluate({})
    asked = trainer.asked_rows
    histories = data.split.histories("valid")
    wanted = [histories[row].tolist() for row in asked]
    assert [given[1].tolist() for given in read] == 2 * wanted, "made when they are read"


@pytest.mark.parametrize("listed", [False, True], ids=["catalogue", "candidates"])
def test_beside_the_teacher_validation_selects_by_the_sum(ws, data, language, monkeypatch, listed):
    class Rule(flax.struct.PyTreeNode):
        items: np.ndarray

        def scores(self, histories):
            return teacher_scores(histories) + 0.0 * self.items  # a tracer where it is compiled

    config = replace(ws.experiment.tune, beside="teacher", select_by="NDCG@10")
    monkeypatch.setattr(ws, "experiment", replace(ws.experiment, tune=config))
    monkeypatch.setattr(tune, "load_teacher", lambda ws, data: Rule(np.arange(NUM_ITEMS)))
    known = data.split.known_items(NUM_ITEMS)
    candidates, ranks = data.candidates["valid"].items, []
    for row, history in enumerate(data.split.histories("valid")):
        padded = np.full((1, ws.experiment.teacher.max_length), -1)
        padded[0, -len(history) :] = history[-padded.shape[1] :]
        scores, target = teacher_scores(padded)[0], data.split.target("valid")[row]
        fresh = [item for item in np.flatnonzero(known) if item not in history]
        among = candidates[row] if listed else [*{*fresh, target}]
        ranks.append(1 + (scores[among] > scores[target]).sum())
    # A language model that answers the same to everything leaves the decision to the teacher.
    scorer = language_scorer.LanguageScorer
    monkeypatch.setattr(scorer, "ranks_catalogue", not listed)
    monkeypatch.setattr(
        scorer, "catalogue", lambda self, system, texts: np.zeros((len(texts.ids), 36))
    )
    monkeypatch.setattr(
        scorer, "candidates", lambda self, system, texts, candidates: np.zeros(candidates.shape)
    )
    system = language_scorer.LanguageSystem(SLOTS, np.zeros((2, 4), np.float32))
    found = tune.Tuning(ws, data, language)._validator(system)({})
    gains = [1 / np.log2(1 + rank) if rank <= 10 else 0 for rank in ranks]
    assert found["valid/selection"] == pytest.approx(np.mean(gains))


def test_evaluated_texts_show_all_but_the_target(ws, data, language):
    shown = []

    class Reader(language_scorer.LanguageScorer):
        def texts(self, *arguments, **more):
            shown.append(super().texts(*arguments, **more))
            return shown[-1]

        def catalogue(self, parts, texts):
            return np.zeros((len(texts.ids), NUM_ITEMS), np.float32)

    run = evaluation.Evaluation(ws.experiment, data)
    run.rank_language_system("delrec", Reader(language), language_scorer.LanguageSystem(SLOTS))
    ids = np.concatenate([texts.ids for texts in shown])
    for user in range(NUM_USERS):
        row = whole_row(data, user)
        assert items_in(ids[user]) == row[:-1] and run.protocols.targets[user] == row[-1]
        np.testing.assert_array_equal(data.split.histories("test")[user], row[:-1])
