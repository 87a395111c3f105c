import dataclasses
import hashlib
import json
import math
import types
import typing
from enum import Enum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgerecover import artifacts
from edgerecover.artifacts import (
    Gate,
    GateStatus,
    Host,
    InputSpec,
    Latency,
    LayerSparsity,
    Parity,
    Pattern,
    Proportion,
    Report,
    Rung,
    Sparsity,
    from_json,
    sha256_of,
    to_json,
)

VALUES = [kind for kind in vars(artifacts).values() if dataclasses.is_dataclass(kind)]


def of_type(kind, within=()):
    """A strategy for anything that a field of a frozen value may hold, read from its type hint.

    Tuples and dictionaries of a kind that a value is `within` are empty.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return st.one_of([of_type(argument, within) for argument in arguments])
    if origin is tuple and arguments[-1] is Ellipsis:
        size = 0 if arguments[0] in within else 2
        return st.lists(of_type(arguments[0], within) if size else st.nothing(), max_size=size).map(tuple)
    if origin is tuple:
        return st.tuples(*[of_type(argument, within) for argument in arguments])
    if origin is dict:
        keys, values = arguments
        if values in within:
            return st.just({})
        return st.dictionaries(of_type(keys, within), of_type(values, within), max_size=2)
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return st.builds(kind, **{name: of_type(hint, (*within, kind)) for name, hint in hints.items()})
    if issubclass(kind, Enum):
        return st.sampled_from(kind)
    return {
        int: st.integers(),
        float: st.floats(allow_nan=False),
        str: st.text(max_size=5),
        bool: st.booleans(),
        type(None): st.none(),
    }[kind]


@pytest.mark.parametrize("kind", VALUES, ids=lambda kind: kind.__name__)
def test_every_value_survives_json(kind):
    @given(of_type(kind))
    def law(value):
        assert from_json(kind, json.loads(json.dumps(to_json(value)))) == value

    law()


def test_the_values_reach_through_the_whole_report():
    assert Report in VALUES
    assert len(VALUES) > 15


RUNG = {"name": "pruned", "agreement": 0.5, "kl": 1.0, "seconds": 0.1}
LAYER = {"name": "fc", "shape": [2, 3], "num_weights": 6, "num_zeros": 0, "pattern": "dense"}


@pytest.mark.parametrize(
    ("kind", "data", "message"),
    [
        (Rung, {**RUNG, "agreement": "high"}, "Rung.agreement: float was expected, found str"),
        (Rung, {**RUNG, "chosen": 1}, "Rung.chosen: bool was expected, found int"),
        (Rung, {**RUNG, "name": None}, "Rung.name: str was expected, found NoneType"),
        (Rung, {**RUNG, "speed": 1}, "Rung: unknown field 'speed'"),
        (Rung, {"name": "pruned"}, "Rung: field 'agreement' is missing"),
        (Rung, [], "Rung: an object was expected, found list"),
        (LayerSparsity, {**LAYER, "num_zeros": True}, "LayerSparsity.num_zeros: int was expected, found bool"),
        (LayerSparsity, {**LAYER, "num_zeros": 1.0}, "LayerSparsity.num_zeros: int was expected, found float"),
        (LayerSparsity, {**LAYER, "shape": 6}, "LayerSparsity.shape: a list was expected, found int"),
        (LayerSparsity, {**LAYER, "shape": [2, "3"]}, r"LayerSparsity.shape\[1\]: int was expected, found str"),
        (LayerSparsity, {**LAYER, "pattern": "4:8"}, "LayerSparsity.pattern: '4:8' is not one of 'dense'"),
        (LayerSparsity, {**LAYER, "pattern": []}, r"LayerSparsity.pattern: \[\] is not one of 'dense'"),
        (Sparsity, {"layers": [LAYER, {}], "pattern": "dense"}, r"Sparsity.layers\[1\]: field 'name' is missing"),
        (
            InputSpec,
            {"shape": [3, 8], "mean": [], "std": [], "range": [0, 1]},
            "InputSpec.shape: 3 items were expected, found 2",
        ),
    ],
)
def test_a_wrong_field_is_named(kind, data, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        from_json(kind, data)


def test_a_field_with_a_default_may_be_left_out_and_a_whole_number_is_a_float():
    rung = from_json(Rung, {**RUNG, "kl": 1})
    assert rung == Rung("pruned", 0.5, 1.0, 0.1, chosen=False)
    assert isinstance(rung.kl, float)


@pytest.mark.parametrize(
    ("hits", "total", "low", "high"),
    [
        # Newcombe 1998, Statistics in Medicine 17, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_the_wilson_interval_against_known_numbers(hits, total, low, high):
    assert Proportion(hits, total).interval() == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_a_proportion_lies_inside_its_interval(hits_and_total):
    proportion = Proportion(*hits_and_total)
    low, high = proportion.interval()
    assert 0 <= low <= proportion.value + 1e-12
    assert proportion.value - 1e-12 <= high <= 1


def test_nothing_counted_says_nothing():
    assert Proportion(0, 0).value == 0
    assert Proportion(0, 0).interval() == (0, 1)


def latency(samples_ms):
    return Latency("", "", "", {}, 1, 1, Host("", "", 1, ""), False, (), tuple(samples_ms), 0.0, 50, 40)


@pytest.mark.parametrize(
    ("percent", "expected"), [(1, 1.0), (50, 50.0), (55, 55.0), (90, 90.0), (99, 99.0), (99.5, 100.0), (100, 100.0)]
)
def test_percentiles_are_nearest_rank(percent, expected):
    shuffled = [float(i * 37 % 101) for i in range(1, 101)]
    assert latency(shuffled).percentile_ms(percent) == expected


@pytest.mark.parametrize("num_samples", [1, 2, 20])
def test_few_samples_give_an_interval_inside_what_was_seen(num_samples):
    measured = latency(float(i) for i in range(num_samples))
    low, high = measured.percentile_interval_ms(99)
    assert 0 <= low <= measured.percentile_ms(99) <= high == num_samples - 1


def test_memory_is_never_negative():
    assert latency([1.0]).memory_model_bytes == 0


def test_input_bounds_per_channel():
    low, high = InputSpec((2, 1, 1), (0.5, 100.0), (0.25, 50.0), (0.0, 255.0)).bounds()
    assert low == (-2.0, -2.0)
    assert high == (1018.0, 3.1)


def test_sparsity_is_weighted_by_layer_size():
    layers = (
        LayerSparsity("a", (10,), 10, 10, Pattern.UNSTRUCTURED),
        LayerSparsity("b", (90,), 90, 0, Pattern.DENSE),
    )
    assert Sparsity(layers, Pattern.UNSTRUCTURED).sparsity == pytest.approx(0.1)
    assert [layer.sparsity for layer in layers] == [1.0, 0.0]
    assert Sparsity((), Pattern.DENSE).sparsity == 0


def test_relative_parity_of_constant_logits_is_infinite():
    assert Parity(1, 0.5, 0.1, 2.0, 1.0).relative == 0.25
    assert Parity(1, 0.5, 0.1, 0.0, 1.0).relative == math.inf


@pytest.mark.parametrize(
    ("statuses", "verdict"),
    [
        ((), GateStatus.PASS),
        ((GateStatus.PASS, GateStatus.NEEDS_DEVICE), GateStatus.PASS),
        ((GateStatus.PASS, GateStatus.INCONCLUSIVE), GateStatus.INCONCLUSIVE),
        ((GateStatus.INCONCLUSIVE, GateStatus.FAIL, GateStatus.PASS), GateStatus.FAIL),
    ],
)
def test_the_verdict_is_the_worst_gate(statuses, verdict):
    gates = tuple(Gate("g", status, 0.0, 0.0, "at least", "", "", "") for status in statuses)
    empty = {field.name: None for field in dataclasses.fields(Report)}
    assert Report(**{**empty, "gates": gates}).verdict is verdict


def test_every_status_is_one_word_for_people():
    assert [status.word for status in GateStatus] == ["PASS", "FAIL", "INCONCLUSIVE", "DEVICE", "SKIP"]


def test_sha256_reads_beyond_one_piece(tmp_path):
    content = bytes(range(256)) * 5000
    (tmp_path / "file").write_bytes(content)
    assert sha256_of(tmp_path / "file") == hashlib.sha256(content).hexdigest()
