"""A point is behind another one that is nowhere worse and somewhere better; a latency is worse when it surely is."""

import random

from edgerecover.sweep.front import with_front


def front(*found):
    return {one.point.name for one in with_front(found) if one.on_front}


def test_a_point_that_is_worse_in_all_is_behind(point):
    good, bad = point("good", 190, 1.0, 1000), point("bad", 150, 2.0, 2000)
    placed = with_front([bad, good])
    assert [one.on_front for one in placed] == [False, True]
    assert placed[0].behind == "good"


def test_better_in_one_is_on_the_front(point):
    accurate, fast, small = point("a", 190, 2.0, 2000), point("f", 150, 1.0, 2000), point("s", 150, 2.0, 1000)
    assert front(accurate, fast, small) == {"a", "f", "s"}


def test_noise_does_not_make_a_latency_better(point):
    """Zeros do not change the time of a dense kernel: of two files of one speed and size, the better one wins."""
    better, worse = point("better", 190, 1.005, 1000), point("worse", 150, 1.0, 1000)
    assert front(better, worse) == {"better"}
    assert front(better, point("faster", 150, 0.9, 1000)) == {"better", "faster"}


def test_equal_points_are_both_on_it(point):
    assert front(point("one", 190, 1.0, 1000), point("two", 190, 1.0, 1000)) == {"one", "two"}


def test_what_was_not_timed_is_on_no_front(point):
    untimed = point("untimed", 199, None, 10)
    assert front(untimed, point("one", 100, 1.0, 1000)) == {"one"}
    assert front(untimed) == set()


def test_every_point_off_the_front_names_one_that_is_better(point):
    rng = random.Random(0)
    found = [
        point(f"p{i}", rng.randrange(100, 200), rng.choice([1.0, 1.5, 2.0]), rng.choice([1, 2])) for i in range(20)
    ]
    placed = with_front(found)
    by_name = {one.point.name: one for one in placed}
    assert 0 < sum(one.on_front for one in placed) < 20
    for one in placed:
        if one.on_front:
            assert one.behind == ""
            continue
        other = by_name[one.behind]
        assert other.quality.value >= one.quality.value
        assert other.size_bytes <= one.size_bytes
        assert other.median_ms <= one.median_ms
