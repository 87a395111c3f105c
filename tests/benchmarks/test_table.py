import pytest
from hypothesis import given
from hypothesis import strategies as st
from table import markdown, spearman


def cell(method, hits, seed=0, pattern="75", **more):
    accuracy = {name: {"hits": n, "total": 500} for name, n in (("teacher", 455), ("pruned", 300), ("exported", hits))}
    agreement = {"exported": {"hits": hits, "total": 500}}
    return {
        "network": "resnet20", "method": method, "pattern": pattern, "seed": seed, "accuracy": accuracy,
        "agreement": agreement, "predicted": {"kept": hits / 500}, "synthesis_s": 90.0, "recover_s": 10.0, "tries": [],
        **more,
    }  # fmt: skip


def process(method, seed=0):
    return {
        "network": "resnet20", "method": method, "seed": seed, "synthesis_s": 90.0, "images_per_s": 7.0,
        "peak_memory_bytes": 1_200_000_000, "peak_gpu_bytes": None, "device": "cpu (2 threads)", "num_threads": 2,
        "host": {"cpu": "EPYC", "num_cores": 2}, "versions": {"torch": "2.15"},
    }  # fmt: skip


def test_seeds_become_mean_and_deviation():
    page = markdown([cell("balanced", hits, seed) for seed, hits in enumerate((450, 455, 460))], [process("balanced")])
    assert "dense 91.0 % on 500 real test images" in page
    assert "| balanced | our profile `balanced` | 91.0 ± 1.0 |" in page
    assert "| balanced | 90 | 7.0 | 10 | 1.20 | – |" in page
    assert "Measured on EPYC, 2 cores" in page


def test_patterns_are_columns_and_what_was_not_run_is_empty():
    page = markdown([cell("none", 50, pattern="2:4"), cell("none", 300), cell("fast", 400)], [])
    assert "| method | what | 75 | 2:4 |" in page
    assert "| none | pruned, as it is | 60.0 | 10.0 |" in page
    assert "| fast | our profile `fast` | 80.0 |  |" in page


def test_the_race_is_won_by_the_first_that_is_as_good():
    tries = [
        {
            "num_steps": steps,
            "recover_s": steps / 10,
            "accuracy": {"exported": {"hits": hits, "total": 500}},
            "rungs": [{"name": "pruned"}, {"name": "distillation" if steps else "statistics repair"}],
        }
        for steps, hits in ((0, 400), (50, 420), (100, 440))
    ]
    paper = cell("paper", 420, synthesis_s=380.0, recover_s=20.0)
    race = cell("race", 440, synthesis_s=35.0, tries=tries)
    page = markdown([paper, race], [])
    assert "takes 400 s to 84.0 %; `fast` as far as distillation of 50 steps 40 s to 84.0 % (0.10 of the time)" in page
    hopeless = cell("race", 100, tries=[tries[0]])
    assert "`fast` did not pass it" in markdown([paper, hopeless], [])


def test_predictions_are_compared_with_what_is_really_kept():
    cells = [cell("fast", hits, seed) for seed, hits in enumerate((455, 400, 91))]
    others = [cell("paper", 10), cell("fractal", 10)]  # judged on other held-out sets
    page = markdown(cells + others, [])
    error = 100 * sum((c["accuracy"]["exported"]["hits"] / 455) - c["predicted"]["kept"] for c in cells) / 3
    assert f"| predicted share kept, all | 3 | 1.00 | {error:.1f} |" in page
    assert "80 % and more really kept" not in page  # two are too few


@given(st.lists(st.integers(-5, 5), min_size=2, max_size=8))
def test_spearman_of_a_list_with_itself_and_its_mirror(values):
    expected = 0.0 if len(set(values)) == 1 else 1.0
    assert spearman(values, values) == pytest.approx(expected)
    assert spearman(values, [-value for value in values]) == pytest.approx(-expected)


def test_spearman_shares_the_ranks_of_equal_values():
    assert spearman([1, 2, 2, 3], [10, 20, 30, 40]) == pytest.approx(0.9486833)
