import pytest

from edgerecover.progress import Pace, Several, Silent


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self):
        self.now_s = 100.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


def advance(pace, clock, seconds, steps=1, times=1):
    for _ in range(times):
        clock.now_s += seconds
        pace.advance(steps)


def test_what_is_left_follows_from_the_rate(clock):
    pace = Pace(100, clock)
    advance(pace, clock, 2, times=10)
    assert (pace.done, pace.share) == (10, 0.1)
    assert pace.rate_per_s() == pytest.approx(0.5)
    assert pace.left_s() == pytest.approx(180)


def test_nothing_is_said_about_what_cannot_be_known_yet(clock):
    pace = Pace(10, clock)
    assert (pace.rate_per_s(), pace.left_s(), pace.mean_per_s()) == (None, None, None)
    clock.now_s += 30  # much time, but nothing done
    assert (pace.rate_per_s(), pace.left_s(), pace.mean_per_s()) == (None, None, None)
    quick = Pace(10, clock)
    advance(quick, clock, 0.1)
    assert quick.left_s() is None  # something done, but in no time


def test_a_rate_is_that_of_the_last_minute(clock):
    pace = Pace(10_000, clock)
    advance(pace, clock, 10, times=60)  # ten minutes at 0.1 a second
    advance(pace, clock, 1, steps=10, times=60)  # and one at 10
    assert pace.rate_per_s() == pytest.approx(10)
    assert pace.left_s() == pytest.approx((10_000 - 660) / 10)
    assert pace.mean_per_s() == pytest.approx(1)


def test_what_is_left_grows_while_nothing_comes(clock):
    pace = Pace(100, clock)
    advance(pace, clock, 1, times=50)
    soon = pace.left_s()
    clock.now_s += 600
    assert pace.left_s() > 5 * soon


def test_parts_of_units_add_up(clock):
    pace = Pace(7, clock)
    advance(pace, clock, 0.01, steps=7 / 200, times=200)
    assert pace.done == pytest.approx(7)
    assert pace.share <= 1


def test_nothing_to_do_is_done(clock):
    assert Pace(0, clock).share == 1


class Heard(Silent):
    def __init__(self):
        self.lines = []

    def task(self, title, total, unit):
        self.lines.append((title, total, unit))
        return super().task(title, total, unit)

    def note(self, message, **numbers):
        self.lines.append((message, numbers))

    def began(self, stage):
        self.lines.append(stage)

    def ended(self, stage, seconds, reused):
        self.lines.append((stage, seconds, reused))


def test_several_hear_the_same():
    first, second = Heard(), Heard()
    progress = Several([first, second])
    progress.began("recover")
    with progress.task("distill", 3, "steps") as task:
        task.advance(1, loss=0.5)
    progress.note("kept", agreement=0.9)
    progress.ended("recover", 1.5, False)
    assert first.lines == second.lines
    assert first.lines == ["recover", ("distill", 3, "steps"), ("kept", {"agreement": 0.9}), ("recover", 1.5, False)]
