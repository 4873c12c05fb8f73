"""The order: keys, the bijection, and the batches of an epoch."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.orders import EPOCHS, SEEDS, batches_of, epoch_batches, spec_of, specs, windows_of
from tests.property.uniformity import deviations
from tfstream import order
from tfstream.errors import UsageError
from tfstream.order import NUMPY, Spec, epoch_of, key, mix, permutations, window_of

KEYS = 1000
LIMIT = 5.0
"""Standard errors. Some 700 cells and spreads are looked at for one n, so that uniform
permutations have one above it in less than one of 1,000 lists of keys; four rounds reach 10 to 18.
"""
SIZES = [3, 16, 64, 365, 1024, 16_384, 65_536]
CHUNK = 2**17
"""Values in memory at a time."""

WORD = 2**64

unsigned = st.integers(0, WORD - 1)


# Keys


def mix_in_plain_integers(value: int) -> int:
    """splitmix64's finaliser, as published."""
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 % WORD
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB % WORD
    return value ^ (value >> 31)


def key_in_plain_integers(*parts: int) -> int:
    """`key`, as its docstring says it."""
    absorbed = 0
    for part in parts:
        absorbed = mix_in_plain_integers(((absorbed ^ part) + 0x9E3779B97F4A7C15) % WORD)
    return absorbed


def test_mix_is_splitmix64() -> None:
    """The published generator's first numbers from the seed 1234567 are the mix of its counter."""
    counter = (1_234_567 + np.arange(1, 4, dtype=object) * 0x9E3779B97F4A7C15) % WORD
    mixed = mix(NUMPY, counter.astype(np.uint64))
    assert mixed.tolist() == [
        6_457_827_717_110_365_317,
        3_203_168_211_198_807_973,
        9_817_491_932_198_370_423,
    ]


@given(st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=5))
@settings(deadline=None)
def test_a_key_absorbs_its_parts_in_turn(parts: list[int]) -> None:
    """The key of any integers is the definition's, in Python's unbounded integers."""
    assert key(NUMPY, *parts).tolist() == [key_in_plain_integers(*parts)]


@given(st.lists(SEEDS, min_size=1, max_size=5), st.data())
@settings(deadline=None)
def test_keys_that_differ_in_one_part_differ(parts: list[int], data: st.DataObject) -> None:
    """No other value of any one part gives the same key."""
    place = data.draw(st.integers(0, len(parts) - 1))
    other = data.draw(SEEDS.filter(lambda value: value != parts[place]))
    changed = [*parts[:place], other, *parts[place + 1 :]]
    assert key(NUMPY, *parts) != key(NUMPY, *changed)


def test_keys_do_not_add_up() -> None:
    """Seed 42's epoch 1 is not seed 43's epoch 0; 100 seeds in 100 epochs share no key."""
    assert key(NUMPY, 42, 1) != key(NUMPY, 43, 0)
    seeds, epochs = np.divmod(np.arange(100 * 100), 100)
    assert len(set(key(NUMPY, seeds, epochs).tolist())) == 100 * 100


# The bijection


def permutation_in_plain_integers(start: int, n: int) -> list[int]:
    """`permutations` for one key, as its docstring says it."""
    bits = max((n - 1).bit_length(), 8)
    numbers = [
        mix_in_plain_integers((start + (i + 1) * 0x9E3779B97F4A7C15) % WORD) >> 32
        for i in range(2 * 8)
    ]
    kept = []
    for value in range(2**bits):
        x = value
        for a, b in zip(numbers[::2], numbers[1::2], strict=True):
            x = (x * (a | 1) + b) % 2**bits
            x ^= x >> ((bits + 1) // 2)
        kept += [x] if x < n else []
    return kept


@given(st.lists(unsigned, min_size=1, max_size=4), st.integers(1, 3000))
@settings(deadline=None)
def test_a_permutation_has_every_number_once(keys: list[int], n: int) -> None:
    """For any n and any keys, each row is a permutation of [0, n), as uint32."""
    made = permutations(NUMPY, np.array(keys, np.uint64), n)
    assert made.dtype == np.uint32
    assert made.shape == (len(keys), n)
    assert (np.sort(made, axis=1) == np.arange(n)).all()


@pytest.mark.parametrize("n", [m + d for m in (2**10, 2**17, 2**20) for d in (-1, 0, 1)])
def test_a_permutation_is_whole_around_powers_of_two(n: int) -> None:
    """Where the number of bits changes, no number is lost or doubled."""
    made = permutations(NUMPY, key(NUMPY, 1, n), n)
    assert (np.sort(made, axis=1) == np.arange(n)).all()


@given(st.lists(unsigned, min_size=1, max_size=3), st.integers(1, 300))
@settings(deadline=None)
def test_a_permutation_is_its_definition(keys: list[int], n: int) -> None:
    """Arrays of keys give what the definition gives in Python's integers, key by key."""
    made = permutations(NUMPY, np.array(keys, np.uint64), n)
    assert made.tolist() == [permutation_in_plain_integers(start, n) for start in keys]


def keyed(n: int) -> Iterator[np.ndarray]:
    """Permutations of [0, n) for `KEYS` fixed keys: the block orders of the epochs of seed 7."""
    keys = key(NUMPY, 7, np.arange(KEYS), 1, 0)
    step = max(1, CHUNK // n)
    for start in range(0, KEYS, step):
        yield permutations(NUMPY, keys[start : start + step], n)


def above_limit(chunks: Iterator[np.ndarray], n: int) -> dict[str, float]:
    """What of the permutations is not uniform."""
    return {name: size for name, size in deviations(chunks, n).items() if size > LIMIT}


@pytest.mark.parametrize("n", SIZES)
def test_the_bijection_is_uniform_in_pairs_and_differences(n: int) -> None:
    """Places, and pairs and differences at lags 1, n/2, n/4, n/8, are uniform over 1000 keys."""
    assert above_limit(keyed(n), n) == {}


@pytest.mark.parametrize("n", [256, 1024, 16_384])
def test_four_rounds_are_not_uniform(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above can fail: half the rounds do, at the lags n/2 and n/4."""
    monkeypatch.setattr(order, "ROUNDS", 4)
    names = "".join(above_limit(keyed(n), n))
    assert f"at lag {n // 2}," in names
    assert f"at lag {n // 4}," in names


@pytest.mark.parametrize("n", [3, 16, 64, 365, 1024])
def test_uniform_permutations_are_uniform(n: int) -> None:
    """The test above can pass: what sorting random words gives, does."""
    words = np.random.PCG64(7).random_raw(KEYS * n).reshape(KEYS, n)
    assert above_limit(iter([np.argsort(words, axis=1)]), n) == {}


def successions(n: int) -> Iterator[np.ndarray]:
    """For orders p of an epoch and q of the next one the permutation that takes p(i) to q(i)."""
    last = np.empty((0, n), np.uint32)
    for chunk in keyed(n):
        epochs = np.concatenate([last, chunk])
        following = np.empty_like(epochs[1:])
        np.put_along_axis(following, epochs[:-1].astype(np.int64), epochs[1:], axis=1)
        last = epochs[-1:]
        yield following


@pytest.mark.parametrize("n", SIZES)
def test_an_epoch_says_nothing_about_the_next(n: int) -> None:
    """Over 1000 epochs, each order relative to the one before is a uniform permutation."""
    assert above_limit(successions(n), n) == {}


@pytest.mark.parametrize("n", SIZES)
def test_consecutive_epochs_share_one_place_on_average(n: int) -> None:
    """Fixed points of a uniform permutation: mean 1 and variance 1, for any n."""
    fixed = np.concatenate([(chunk == np.arange(n)).sum(1) for chunk in successions(n)])
    assert len(fixed) == KEYS - 1
    assert abs(fixed.mean() - 1) < LIMIT / np.sqrt(len(fixed))


# Batches


def batches_in_plain_lists(spec: Spec, kept: np.ndarray, epoch: int) -> list[list[int]]:
    """The order of an epoch as the module's docstring says it, whole and in lists."""

    def shuffled(rows: list[int], *parts: int) -> list[int]:
        if spec.shuffle == "none":
            return rows
        keys = key(NUMPY, spec.seed, epoch, *parts)
        return [rows[place] for place in permutations(NUMPY, keys, len(rows))[0]]

    starts = (np.cumsum(kept) - kept).tolist()
    blocks = shuffled(list(range(spec.blocks)), 1, 0)
    sequence = [starts[block] + row for block in blocks for row in range(kept[block])]
    share = spec.batch_size // spec.stretches
    length = spec.full_steps * share
    stretches = []
    for i in range(spec.stretches):
        stretch = sequence[i * length : (i + 1) * length]
        width = spec.window_steps * share
        windows = [stretch[start : start + width] for start in range(0, length, width)]
        permuted = [shuffled(rows, 2, window, i) for window, rows in enumerate(windows)]
        stretches.append([row for rows in permuted for row in rows])
    batches = [
        [row for stretch in stretches for row in stretch[step * share : (step + 1) * share]]
        for step in range(spec.full_steps)
    ]
    rest = sequence[spec.full_steps * spec.batch_size :]
    if rest and spec.remainder == "keep":
        batches.append(shuffled(rest, 3, spec.full_windows, 0))
    return batches


@given(specs(), EPOCHS)
@settings(deadline=None, max_examples=300)
def test_batches_are_the_definition(case: tuple[Spec, np.ndarray], epoch: int) -> None:
    """Windows computed by arithmetic give the batches of the definition, row by row in order."""
    spec, kept = case
    made = [batch.tolist() for batch in epoch_batches(spec, kept, epoch)]
    assert made == batches_in_plain_lists(spec, kept, epoch)


@given(specs(), EPOCHS)
@settings(deadline=None, max_examples=300)
def test_batches_tile_the_subset(case: tuple[Spec, np.ndarray], epoch: int) -> None:
    """Every row is in one batch of an epoch, once; "drop" drops fewer than a batch.

    All batches but the kept remainder are full.
    """
    spec, kept = case
    batches = epoch_batches(spec, kept, epoch)
    rows = np.concatenate(batches)
    assert len(batches) == spec.steps_per_epoch
    assert {len(batch) for batch in batches[: spec.full_steps]} <= {spec.batch_size}
    assert len(set(rows.tolist())) == len(rows)
    assert set(rows.tolist()) <= set(range(spec.rows))
    dropped = spec.rows - len(rows)
    assert dropped == (0 if spec.remainder == "keep" else spec.rows % spec.batch_size)


@given(specs(), EPOCHS)
@settings(deadline=None)
def test_a_step_is_found_in_its_window(case: tuple[Spec, np.ndarray], epoch: int) -> None:
    """`window_of` and `first_step` say for each step which window holds it, and where."""
    spec, kept = case
    steps = [
        (window, place)
        for window, made in enumerate(windows_of(spec, kept, epoch))
        for place in range(len(made.picks))
    ]
    assert steps == [spec.window_of(step) for step in range(spec.steps_per_epoch)]
    firsts = [spec.first_step(window) for window in range(spec.windows_per_epoch)]
    assert firsts == [steps.index((window, 0)) for window in range(spec.windows_per_epoch)]


@given(specs(), EPOCHS)
@settings(deadline=None)
def test_a_window_reads_what_it_picks(case: tuple[Spec, np.ndarray], epoch: int) -> None:
    """Each block that a window reads has a row in it; none comes oftener than once a stretch."""
    spec, kept = case
    for window in windows_of(spec, kept, epoch):
        ends = np.cumsum(kept[window.blocks])
        assert window.picks.min() >= 0
        used = np.unique(np.searchsorted(ends, window.picks.ravel(), side="right"))
        assert used.tolist() == list(range(len(window.blocks)))
        assert np.bincount(window.blocks).max() <= spec.stretches


@given(specs(), EPOCHS)
@settings(deadline=None)
def test_without_shuffle_one_stretch_is_the_manifest(
    case: tuple[Spec, np.ndarray], epoch: int
) -> None:
    """With "none" and one stretch, the batches one after the other count the rows."""
    given_spec, kept = case
    spec = spec_of(kept, shuffle="none", stretches=1, batch_size=given_spec.batch_size)
    rows = np.concatenate(epoch_batches(spec, kept, epoch))
    assert rows.tolist() == list(range(spec.rows))


def test_seeds_and_epochs_have_orders_of_their_own() -> None:
    """Seeds 42 and 43 and epochs 0 and 1 make four orders: 42's epoch 1 is not 43's epoch 0."""
    kept = np.full(50, 40, np.int64)
    first = {
        tuple(epoch_batches(spec_of(kept, seed=seed, batch_size=64), kept, epoch)[0])
        for seed in (42, 43)
        for epoch in (0, 1)
    }
    assert len(first) == 4


def test_rows_beyond_32_bits_are_ordered_alike() -> None:
    """In a subset of more than 2^32 rows the windows stay disjoint, and the tail is full."""
    kept = np.full(2_000_000, 4096, np.int64)
    kept[-1] = 17
    spec = spec_of(kept, batch_size=1024, window_steps=64, stretches=8)
    assert spec.rows > 2**32
    sequence = epoch_of(NUMPY, spec, kept, 5)
    starts = np.cumsum(kept) - kept
    last = spec.full_windows - 1
    seen = []
    for window in (0, last // 2, last, last + 1):
        made = window_of(NUMPY, spec, sequence, 5, window)
        ends = np.cumsum(kept[made.blocks])
        read = np.searchsorted(ends, made.picks.ravel(), side="right")
        seen.append(
            starts[made.blocks[read]] + made.picks.ravel() - (ends - kept[made.blocks])[read]
        )
    rows = np.concatenate(seen)
    assert len(set(rows.tolist())) == len(rows)
    assert rows.min() >= 0
    assert 2**32 < rows.max() < spec.rows
    assert len(seen[-1]) == spec.tail_rows == spec.rows % 1024


@pytest.mark.parametrize("rows", [1, 7, 8, 9, 4095, 4096])
def test_batches_of_one_window_are_those_of_its_blocks(rows: int) -> None:
    """A window is the same asked for alone or after others, in any order."""
    kept = np.full(3, rows, np.int64)
    spec = spec_of(kept)
    whole = list(windows_of(spec, kept, 9))
    sequence = epoch_of(NUMPY, spec, kept, 9)
    for window in reversed(range(spec.windows_per_epoch)):
        alone = batches_of(kept, window_of(NUMPY, spec, sequence, 9, window))
        together = batches_of(kept, whole[window])
        assert [batch.tolist() for batch in alone] == [batch.tolist() for batch in together]


# Refusals

KEPT = np.array([10, 10], np.int64)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"batch_size": -8}, "batch_size must be at least 1, got -8"),
        ({"seed": -1}, "seed must be from 0 to 2^63 - 1, got -1"),
        ({"seed": 2**63}, "seed must be from 0 to 2^63 - 1, got 9223372036854775808"),
        (
            {"window_steps": 0},
            "a window must have from 1 step to 2^31 rows, got 0 steps of 8 rows; set window_rows",
        ),
        (
            {"window_steps": 2**28 + 1},
            (
                "a window must have from 1 step to 2^31 rows, got 268435457 steps of 8 rows; "
                "set window_rows"
            ),
        ),
        ({"remainder": "droop"}, """remainder is "keep" or "drop", not 'droop'"""),
        ({"shuffle": "nonne"}, """shuffle is "global", "shards" or "none", not 'nonne'"""),
        ({"shuffle": "none", "stretches": 4}, 'shuffle="none" has one stretch, got 4'),
        ({"stretches": 0}, "stretches must divide batch_size, got 0 for 8 rows"),
        ({"stretches": -2}, "stretches must divide batch_size, got -2 for 8 rows"),
        ({"stretches": 3}, "stretches must divide batch_size, got 3 for 8 rows"),
        (
            {"rows": 0},
            "the subset has no rows, so no epoch has a step; choose another subset",
        ),
        (
            {"batch_size": 32, "remainder": "drop"},
            (
                "an epoch has no step: 20 rows are fewer than one batch of 32 and "
                'remainder="drop"; use a smaller batch or remainder="keep"'
            ),
        ),
    ],
)
def test_a_spec_refuses_numbers_without_an_order(changes: dict[str, object], message: str) -> None:
    """What is wrong, the number, and what to do where it is not plain."""
    with pytest.raises(UsageError) as refused:
        spec_of(KEPT, **changes)
    assert str(refused.value) == message


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 0},
        {"seed": 2**63 - 1},
        {"window_steps": 2**28},
        {"batch_size": 1, "stretches": 1, "window_steps": 1},
        {"batch_size": 20, "remainder": "drop"},
        {"batch_size": 32},
    ],
)
def test_a_spec_takes_numbers_on_the_bounds(changes: dict[str, object]) -> None:
    """The last numbers that are allowed have an order that tiles the subset."""
    rows = np.concatenate(epoch_batches(spec_of(KEPT, **changes), KEPT, 0))
    assert sorted(rows.tolist()) == list(range(20))
