import pytest
import torch

from edgerecover.recovery.least_squares import fit, is_too_wide


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def error(x_GNPI, y_GNPO, weight_GOI, bias_GO):
    predicted = x_GNPI.flatten(1, 2) @ weight_GOI.transpose(1, 2) + bias_GO.unsqueeze(1)
    return float((predicted - y_GNPO.flatten(1, 2)).square().mean())


TAUGHT = random(2, 5, 8, seed=1)
MASK = (random(2, 5, 8, seed=2) > 0).float()


def taught(x_GNPI, noise=0.0):
    y_GNPO = torch.einsum("gnpi,goi->gnpo", x_GNPI, TAUGHT) + 3.0
    return y_GNPO + noise * random(*y_GNPO.shape, seed=3)


def test_enough_images_give_each_row_its_solution_on_its_own_support():
    x, start = 2 + random(2, 400, 4, 8), MASK * random(2, 5, 8, seed=4)
    y = taught(x)
    fitted = fit(x, y, start, None, MASK)
    assert fitted is not None
    centred = (x - x.mean((1, 2), keepdim=True)).flatten(1, 2).double()
    for group in range(2):
        ridge = 0.01 * x[group].square().mean().double()
        for row in range(5):
            kept = MASK[group, row] > 0
            inputs = centred[group][:, kept]
            missing = y[group, ..., row].flatten().double() - centred[group] @ start[group, row].double()
            normal = inputs.T @ inputs / len(inputs) + ridge * torch.eye(int(kept.sum()))
            change = torch.linalg.solve(normal, inputs.T @ (missing - missing.mean()) / len(inputs))
            expected = start[group, row].clone()
            expected[kept] += change.float()
            torch.testing.assert_close(fitted.weight_GOI[group, row], expected, rtol=0.01, atol=5e-3)


def test_the_bias_makes_the_mean_right():
    x = 2 + random(2, 100, 4, 8)
    y = taught(x)
    fitted = fit(x, y, MASK * random(2, 5, 8, seed=4), torch.zeros(2, 5), MASK)
    means = (x.mean((1, 2)).unsqueeze(1) @ fitted.weight_GOI.transpose(1, 2)).squeeze(1) + fitted.bias_GO
    torch.testing.assert_close(means, y.mean((1, 2)), rtol=1e-4, atol=1e-4)


def test_few_images_of_noise_leave_a_map_that_is_right_alone():
    x = random(2, 6, 1, 8)
    assert fit(x, taught(x, noise=5.0), TAUGHT, torch.full((2, 5), 3.0), torch.ones(2, 5, 8)) is None


@pytest.mark.parametrize("num_images", [3, 6, 12, 24, 200])
@pytest.mark.parametrize("noise", [0.0, 0.5, 2.0])
def test_few_images_do_not_make_a_map_worse_on_others(num_images, noise):
    """Taken to their end, the iterations make the error up to six times the start's."""
    x = random(2, num_images, 1, 8, seed=5)
    start, bias = TAUGHT + 0.5 * random(2, 5, 8, seed=6), torch.full((2, 5), 3.0)
    others = random(2, 500, 1, 8, seed=7)
    fitted = fit(x, taught(x, noise), start, bias, torch.ones(2, 5, 8))
    before = error(others, taught(others), start, bias)
    after = before if fitted is None else error(others, taught(others), fitted.weight_GOI, fitted.bias_GO)
    assert after <= 1.05 * before
    if num_images == 200:
        assert after < 0.2 * before


def test_images_that_say_the_same_are_no_more_than_one():
    """Positions of an image are in the same half, so copies of a sample bear nothing out."""
    x = random(2, 6, 1, 8)
    y = taught(x, noise=5.0)
    assert fit(x.repeat(1, 1, 16, 1), y.repeat(1, 1, 16, 1), TAUGHT, None, torch.ones(2, 5, 8)) is None


def test_one_image_is_divided_by_its_positions():
    x = random(2, 1, 400, 8)
    fitted = fit(x, taught(x), torch.zeros(2, 5, 8), None, torch.ones(2, 5, 8))
    torch.testing.assert_close(fitted.weight_GOI, TAUGHT, rtol=0.05, atol=0.05)


def test_a_map_that_is_right_stays_right():
    x = random(2, 100, 4, 8)
    fitted = fit(x, taught(x), TAUGHT, torch.full((2, 5), 3.0), torch.ones(2, 5, 8))
    assert torch.equal(fitted.weight_GOI, TAUGHT)
    torch.testing.assert_close(fitted.bias_GO, torch.full((2, 5), 3.0))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_samples_that_are_not_numbers_leave_a_map_alone(value):
    x = random(2, 50, 4, 8)
    x[0, 3, 1, 2] = value
    assert fit(x, taught(x), TAUGHT, None, MASK) is None


def test_a_map_that_cannot_be_solved_in_reasonable_time():
    assert not is_too_wide(512, 4608)
    assert is_too_wide(4096, 4096)
