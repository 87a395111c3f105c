import dataclasses
import re

from edgerecover.artifacts import Pattern, Sparsity
from edgerecover.report.html.report import html


def test_of_fewer_channels_what_is_gone_is_of_the_dense_network(report):
    """A narrower layer has no zeros, and half of its weights are gone all the same."""
    dense = tuple(
        dataclasses.replace(layer, num_weights=2 * layer.num_weights, num_zeros=0, pattern=Pattern.DENSE)
        for layer in report.student.sparsity.layers
    )
    narrow = Sparsity(
        tuple(dataclasses.replace(layer, num_zeros=0) for layer in report.student.sparsity.layers), Pattern.CHANNEL
    )
    pruned = dataclasses.replace(
        report,
        student=dataclasses.replace(report.student, sparsity=narrow, macs_kept=0.47),
        teacher=dataclasses.replace(report.teacher, sparsity=Sparsity(dense, Pattern.DENSE)),
        recovered_sparsity=narrow,
    )
    text = html(pruned)
    chart = re.search(r'aria-label="Weights removed from the dense network.*?</svg>', text, re.DOTALL)[0]
    assert set(re.findall(r": ([\d.]+ %)</title>", chart)) == {"50.0 %"}
    assert "47.0 % of MACs" in text
