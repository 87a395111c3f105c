"""NumPy arrays in pickles: values as saved; whatever else a file claims is refused."""

import pickle

import numpy as np
import pytest

from edgerecover.models.read.arrays import is_array, read_array
from edgerecover.models.read.pickles import parse
from edgerecover.models.read.records import Made, Name, UnusableTensorError


def record(array, protocol=4):
    return parse(pickle.dumps(array, protocol)).root


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("shape", [(), (1, 3), (5,), (2, 3, 4)])
def test_values_are_those_that_were_saved(protocol, shape):
    array = np.arange(np.prod(shape), dtype=">i4").reshape(shape)
    made = record(array, protocol)
    assert is_array(made)
    assert np.array_equal(read_array(made).numpy(), array)
    assert np.array_equal(read_array(record(array.T, protocol)).numpy(), array.T)


@pytest.mark.parametrize("array", [np.array([None]), np.array(["a"]), np.zeros(2, "c8"), np.zeros(2, "f4,f4")])
def test_arrays_of_something_else_than_numbers_are_refused(array):
    with pytest.raises(UnusableTensorError):
        read_array(record(array))


@pytest.mark.parametrize(
    ("place", "value"),
    [(1, (1 << 40, 2)), (1, (-1,)), (1, (2.0,)), (1, [2]), (2, None), (2, Made(Name("numpy", "dtype"), None)),
     (4, b""), (4, None), (4, Made(Name("_codecs", "encode"), ("\u20ac" * 8, "latin1")))],
)  # fmt: skip
def test_records_that_do_not_fit_are_refused(place, value):
    made = record(np.zeros(2, np.float32))
    made.state = (*made.state[:place], value, *made.state[place + 1 :])
    with pytest.raises(UnusableTensorError):
        read_array(made)


@pytest.mark.parametrize("state", [None, (), (1, 2), "text"])
def test_records_without_their_parts_are_refused(state):
    made = record(np.zeros(2, np.float32))
    made.state = state
    with pytest.raises(UnusableTensorError):
        read_array(made)
