import collections
import dataclasses
import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delrec_jax.data.corpora import DataConfig, prepare_corpus
from delrec_jax.data.corpora.storefront_catalogue import number_word
from delrec_jax.data.corpora.storefront_world import (
    BEHAVIOUR_WORDS,
    StorefrontConfig,
    behaviours,
    make_world,
    next_item_distributions,
    sample_interactions,
)
from delrec_jax.data.interactions import fingerprint
from delrec_jax.data.split_kinds import leave_one_out
from delrec_jax.data.splits import padded_histories
from delrec_jax.errors import UserError

SMALL = StorefrontConfig(
    genres=2,
    series=2,
    volumes=3,
    users=50,
    min_length=3,
    max_length=6,
    mean_extra=1.0,
    collector=(0.5, 0.2, 0.3),
    wanderer=(0.1, 0.6, 0.3),
)


def next_item_distribution(world, history, *, released):
    return np.asarray(next_item_distributions(world, [history], released=released)[0])


def expectations(world, interactions):
    """The best possible results at the test step of these rows, and those of the most popular unseen item."""
    rows = [interactions.history(user) for user in range(interactions.num_users)]
    exact = next_item_distributions(world, [row[:-1] for row in rows], released=True)
    last, before = np.array([row[-1] for row in rows]), np.array([row[-2] for row in rows])
    trained = np.concatenate([row[:-2] for row in rows])
    counts = np.bincount(trained, minlength=world.catalogue.num_items)
    unseen_counts = np.where(exact > 0, counts, -1)
    return {
        "oracle_hr1": float(exact.max(axis=1).mean()),
        "continuation_is_best": float(
            np.mean(exact.argmax(axis=1) == world.process.continuation[before])
        ),
        "cold_targets": float(world.process.cold[last].mean()),
        "popularity_hr1": float(np.mean(unseen_counts.argmax(axis=1) == last)),
    }


def item_of(genre, slot, volume, config=SMALL):
    return (genre % config.genres * config.series + slot % config.series) * config.volumes + volume


def steps_by_hand(item, config=SMALL):
    """Continuation and drift of an item, from the definition in words."""
    slot_index, volume = divmod(item, config.volumes)
    genre, slot = divmod(slot_index, config.series)
    continuation = item_of(genre, slot + 1, (volume + 1) % config.volumes, config)
    return continuation, item_of(genre + 1, slot, (volume + 1) % config.volumes, config)


def conditional_by_hand(world, history, weights, released):
    """p(next | history, profile), one user and one item at a time."""
    chances = {}
    for item in range(world.catalogue.num_items):
        if item in history or (world.process.cold[item] and not released):
            continue
        chance = weights[2] * world.process.popularity[item]
        if history:
            continuation, drift = steps_by_hand(history[-1])
            chance += weights[0] * (item == continuation) + weights[1] * (item == drift)
        chances[item] = chance
    total = sum(chances.values())
    return {item: chance / total for item, chance in chances.items()}


def predictive_by_hand(world, history, released):
    """Bayes over the profiles, from products over the whole history."""
    joint = []
    for share, weights in zip(world.process.shares, world.process.weights, strict=True):
        for step, item in enumerate(history):
            share *= conditional_by_hand(world, history[:step], weights, False)[item]
        joint.append(share)
    result = np.zeros(world.catalogue.num_items)
    for share, weights in zip(joint, world.process.weights, strict=True):
        for item, chance in conditional_by_hand(world, history, weights, released).items():
            result[item] += share / sum(joint) * chance
    return result


@settings(max_examples=60)
@given(st.data(), st.integers(0, 3), st.booleans())
def test_predictive_distribution_is_bayes_by_brute_force(data, seed, released):
    world = make_world(SMALL, seed)
    warm = np.flatnonzero(~world.process.cold).tolist()
    history = data.draw(st.lists(st.sampled_from(warm), unique=True, max_size=5))
    found = next_item_distribution(world, np.array(history, int), released=released)
    np.testing.assert_allclose(found, predictive_by_hand(world, history, released), atol=1e-12)
    assert found.sum() == pytest.approx(1.0, abs=1e-12)
    assert not found[history].any()
    if not released:
        assert not found[world.process.cold].any()
    else:
        assert (found > 0).sum() == world.catalogue.num_items - len(history)


@pytest.mark.parametrize("shape", [(1, 1, 12), (1, 3, 4), (12, 1, 1)])
def test_worlds_where_behaviours_coincide_still_sum_to_one(shape):
    config = dataclasses.replace(
        SMALL, genres=shape[0], series=shape[1], volumes=shape[2], cold_share=0.0
    )
    world = make_world(config, 0)
    chances = next_item_distributions(world, [np.array([k]) for k in range(12)], released=True)
    np.testing.assert_allclose(chances.sum(axis=1), 1.0, atol=1e-12)
    if shape == (1, 1, 12):  # continuation and drift are the same item: both weights count
        share = world.process.shares @ world.process.weights[:, :2].sum(axis=1)
        popular = 1 - world.process.popularity[3]
        noise = world.process.weights[0, 2]
        norm = 1 - noise + noise * popular
        expected = (share + noise * world.process.popularity[4]) / norm
        assert chances[3, 4] == pytest.approx(expected)


def test_batches_of_padded_or_ragged_histories_agree_with_one_at_a_time():
    world = make_world(SMALL, 1)
    split = leave_one_out(sample_interactions(world))
    padded = padded_histories(split, "test", 6)
    together = next_item_distributions(world, padded, released=True)
    for row, user in enumerate(split.users("test")):
        history = split.history("test", int(user))
        single = next_item_distribution(world, history, released=True)
        np.testing.assert_allclose(together[row], single, atol=1e-14)


def test_rows_follow_the_exact_distribution():
    """All first-three-item paths of many users, against the chain rule of the oracle."""
    config = dataclasses.replace(
        SMALL, genres=2, series=1, volumes=3, users=40_000, min_length=3, max_length=3
    )
    world = make_world(config, 0)
    rows = sample_interactions(world)
    found = collections.Counter(tuple(rows.history(user)) for user in range(config.users))
    count = world.catalogue.num_items
    expected = {}
    first = next_item_distribution(world, np.array([], int), released=False)
    for one in np.flatnonzero(first):
        second = next_item_distribution(world, np.array([one]), released=False)
        for two in np.flatnonzero(second):
            third = next_item_distribution(world, np.array([one, two]), released=True)
            for three in np.flatnonzero(third):
                expected[one, two, three] = first[one] * second[two] * third[three]
    assert sum(expected.values()) == pytest.approx(1.0)
    assert set(found) <= set(expected)
    assert world.process.cold.sum() == 2
    assert count == 6
    mean = np.array([expected[path] * config.users for path in expected])
    seen = np.array([found[path] for path in expected])
    chi_square = np.sum((seen - mean) ** 2 / mean)
    degrees = len(mean) - 1
    assert abs(chi_square - degrees) < 5 * np.sqrt(2 * degrees)


def test_rows_are_varied_repeat_nothing_and_end_with_the_only_new_releases():
    config = StorefrontConfig()
    world = make_world(config, 0)
    rows = sample_interactions(world)
    assert rows.num_users == 600
    assert (rows.lengths.min(), rows.lengths.max()) == (5, 14)
    assert len(set(rows.lengths.tolist())) == 10
    release = min(
        rows.times[rows.offsets[u + 1] - 1]
        for u in range(600)
        if world.process.cold[rows.history(u)[-1]]
    )
    for user in range(600):
        history = rows.history(user)
        times = rows.times[rows.offsets[user] : rows.offsets[user + 1]]
        assert len(set(history.tolist())) == len(history)
        assert not world.process.cold[history[:-1]].any()
        assert np.all(np.diff(times) > 0)
        assert times[-2] < release
    split = leave_one_out(rows)
    assert not world.process.cold[split.target("valid")].any()
    assert np.all(split.cold_items(240) >= world.process.cold)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_default_world_is_as_hard_as_it_should_be(seed):
    world = make_world(StorefrontConfig(), seed)
    found = expectations(world, sample_interactions(world))
    assert 0.5 <= found["oracle_hr1"] <= 0.6
    assert found["continuation_is_best"] >= 0.85
    assert 0.25 <= found["cold_targets"] <= 0.40
    assert found["popularity_hr1"] <= 0.10


def test_the_expected_hit_rate_is_reached_by_the_oracle_and_by_no_simple_rule():
    world = make_world(StorefrontConfig(users=6000), 3)
    rows = sample_interactions(world)
    split = leave_one_out(rows)
    histories = split.histories("test")
    chances = next_item_distributions(world, histories, released=True)
    hits = np.mean(chances.argmax(axis=1) == split.target("test"))
    expected = expectations(world, rows)["oracle_hr1"]
    assert abs(hits - expected) < 4 * np.sqrt(0.25 / 6000)
    latest = np.array([history[-1] for history in histories])
    assert np.mean(world.process.continuation[latest] == split.target("test")) <= hits + 0.005
    assert np.mean(world.process.drift[latest] == split.target("test")) < 0.35


def test_worlds_of_two_seeds_share_the_shelves_and_differ_in_everything_else():
    config = StorefrontConfig(users=40)
    one, two = make_world(config, 0), make_world(config, 1)
    assert one.catalogue == two.catalogue
    for name in ("continuation", "drift", "shares", "weights"):
        assert np.array_equal(getattr(one.process, name), getattr(two.process, name))
    assert one.process.cold.sum() == two.process.cold.sum() == 72
    assert not np.array_equal(one.process.cold, two.process.cold)
    assert not np.array_equal(one.process.popularity, two.process.popularity)
    assert np.allclose(np.sort(one.process.popularity), np.sort(two.process.popularity))
    first, second = sample_interactions(one), sample_interactions(two)
    assert first.items.tolist() != second.items.tolist()
    assert first.items.tolist() == sample_interactions(make_world(config, 0)).items.tolist()
    other = make_world(dataclasses.replace(config, catalogue_seed=1), 0)
    assert set(other.catalogue.titles) != set(one.catalogue.titles)
    assert np.array_equal(other.process.cold, one.process.cold)


def test_a_users_row_does_not_depend_on_the_number_of_users():
    few = sample_interactions(make_world(StorefrontConfig(users=7), 0))
    many = sample_interactions(make_world(StorefrontConfig(users=31), 0))
    stop = few.offsets[-1]
    assert many.items[:stop].tolist() == few.items.tolist()
    assert many.times[:stop].tolist() == few.times.tolist()
    assert many.user_ids[:7] == few.user_ids


def test_titles_say_genre_series_and_volume_in_as_many_words_each():
    catalogue = make_world(StorefrontConfig(), 0).catalogue
    assert catalogue.num_items == 240
    rows = zip(catalogue.titles, *catalogue.attributes.values(), strict=True)
    for title, genre, series, volume in rows:
        assert title.startswith(f"{series} {genre} ")
        assert title.endswith(f" {volume}")
        assert len(title.split()) == 5
        assert len(series.split()) == 2
    assert len(set(catalogue.attributes["series"])) == 30


def test_no_single_word_of_a_series_name_gives_the_genre_away():
    catalogue = make_world(StorefrontConfig(), 0).catalogue
    genres = collections.defaultdict(set)
    columns = catalogue.attributes["genre"], catalogue.attributes["series"]
    for genre, series in zip(*columns, strict=True):
        adjective, noun = series.split()
        genres[adjective].add(genre)
        genres[noun].add(genre)
    assert min(map(len, genres.values())) >= 2
    # ... and within one genre no word is in two series.
    for genre in set(catalogue.attributes["genre"]):
        names = {s for g, s in zip(*columns, strict=True) if g == genre}
        words = [word for name in names for word in name.split()]
        assert len(set(words)) == len(words)


def test_behaviours_by_hand():
    maps = behaviours(make_world(SMALL, 0))
    assert set(maps) == set(BEHAVIOUR_WORDS)
    for genre, slot, volume in itertools.product(range(2), range(2), range(3)):
        item = item_of(genre, slot, volume)
        following, before = (volume + 1) % 3, (volume - 1) % 3
        continuation, drift = steps_by_hand(item)
        expected = {
            "next_volume": item_of(genre, slot, following),
            "previous_volume": item_of(genre, slot, before),
            "first_volume": item_of(genre, slot, 0),
            "companion_series": item_of(genre, slot + 1, volume),
            "companion_next": continuation,
            "next_genre": item_of(genre + 1, slot, volume),
            "next_genre_next_volume": drift,
            "previous_genre": item_of(genre - 1, slot, volume),
        }
        assert {name: int(leads_to[item]) for name, leads_to in maps.items()} == expected
    assert all(leads_to.dtype == np.int32 for leads_to in maps.values())


def test_behaviours_differ_from_each_other_in_the_default_world():
    maps = behaviours(make_world(StorefrontConfig(), 0))
    for one, two in itertools.combinations(maps, 2):
        same = np.mean(maps[one] == maps[two])
        assert same <= 0.125
    words = [text for texts in BEHAVIOUR_WORDS.values() for text in texts]
    assert len(set(words)) == len(words)
    assert all(1 <= len(texts) <= 3 for texts in BEHAVIOUR_WORDS.values())


def test_any_size_up_to_the_words_there_are():
    large = StorefrontConfig(genres=30, series=40, volumes=25, users=1)
    titles = make_world(large, 0).catalogue.titles
    assert len(set(titles)) == 30_000
    assert {len(title.split()) for title in titles} == {6}  # genres of two words, all of them
    assert make_world(dataclasses.replace(SMALL, genres=1, series=60, volumes=2), 0)
    assert [number_word(n) for n in (1, 19, 20, 42, 99)] == [
        "One", "Nineteen", "Twenty", "Forty-Two", "Ninety-Nine",
    ]  # fmt: skip
    assert len({number_word(n) for n in range(1, 100)}) == 99


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"genres": 48, "series": 49}, r"2352 series asked, 2304 names"),
        ({"genres": 321, "series": 1}, r"storefront\.genres: 321 asked, 320 names"),
        ({"volumes": 100}, r"storefront\.volumes: volume 100"),
        ({"users": 0}, r"users at least 1"),
        ({"min_length": 9}, r"max_length is 6, below data\.storefront\.min_length = 9"),
        ({"max_length": 9}, r"max_length at most the 8 items that are not new"),
        ({"cold_share": 1.0}, r"cold_share"),
        ({"collector": (0.5, 0.5, 0.0)}, r"collector: three weights"),
        ({"wanderer": (0.5, 0.4, 0.2)}, r"wanderer: three weights"),
        ({"wanderer": (0.5, 0.5)}, r"wanderer is \(0\.5, 0\.5\): give the weights of"),
    ],
)
def test_impossible_worlds_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        make_world(dataclasses.replace(SMALL, **change), 0)


@pytest.mark.parametrize("kind", ["cold", "twice", "outside"])
def test_histories_that_cannot_happen_are_refused(kind):
    world = make_world(SMALL, 0)
    warm, cold = np.flatnonzero(~world.process.cold), np.flatnonzero(world.process.cold)
    history = {"cold": [warm[0], cold[0]], "twice": [warm[0], warm[1], warm[0]], "outside": [12]}
    with pytest.raises(UserError, match=r"cannot happen in this world.*data\.seed"):
        next_item_distribution(world, np.array(history[kind]), released=True)


def test_prepare_corpus_gives_back_the_rows_that_the_config_draws(tmp_path):
    config = DataConfig(storefront=SMALL, seed=4)
    for _ in range(2):
        corpus = prepare_corpus(config, tmp_path)
        world = make_world(SMALL, 4)
        rows = sample_interactions(world)
        assert corpus.name == "storefront"
        assert corpus.catalogue == world.catalogue
        assert corpus.interactions.user_ids == rows.user_ids
        assert np.array_equal(corpus.interactions.offsets, rows.offsets)
        assert np.array_equal(corpus.interactions.items, rows.items)
        assert np.array_equal(corpus.interactions.times, rows.times)
        assert corpus.dropped == {}
    other = prepare_corpus(dataclasses.replace(config, seed=5), tmp_path)
    assert fingerprint(other) != fingerprint(corpus)


def test_the_oracle_of_600_users_is_computed_within_a_minute():
    world = make_world(StorefrontConfig(), 0)
    split = leave_one_out(sample_interactions(world))
    histories = split.histories("test")
    start = time.process_time()
    next_item_distributions(world, histories, released=True)
    assert time.process_time() - start < 60  # it takes 0.04 s
