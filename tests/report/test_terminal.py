import dataclasses
import io
import json
import re
from html import unescape

import pytest
from rich.console import Console

from edgerecover.artifacts import (
    Gate,
    GateStatus,
    Host,
    Int8Sums,
    Pattern,
    Proportion,
    Report,
    Sparsity,
    TaskKind,
    from_json,
    to_json,
)
from edgerecover.cli.console import write_nearest
from edgerecover.report.html.report import html
from edgerecover.report.layout import Name, grid, show
from edgerecover.report.markdown import markdown
from edgerecover.report.terminal import print_facts, print_pairs, print_report

DREAMS = 256
BUNDLE = "/home/ada/nets/model.jetson-orin.bundle"


def shown(show, *values, width=80, **console):
    file = io.StringIO()
    show(Console(width=width, file=file, **{"no_color": True, **console}), *values)
    return file.getvalue()


def on_target(report):
    latency = dataclasses.replace(
        report.latency, host_is_target=True, host=Host("aarch64", "Cortex-A78AE", 6, "Linux 5.15", "Jetson Orin Nano")
    )
    return dataclasses.replace(report, latency=latency)


@pytest.mark.parametrize(
    ("task", "agreement", "truth"),
    [
        (TaskKind.MULTI_LABEL, "Jaccard index with the teacher", "Jaccard index"),
        (TaskKind.EMBEDDING, "cosine with the teacher", "nearest-neighbour accuracy"),
        (TaskKind.REGRESSION, "closeness to the teacher", "closeness to the truth"),
        (TaskKind.SEGMENTATION, "mean IoU with the teacher", "mean IoU"),
        (TaskKind.DETECTION, "box F1 with the teacher", "box F1"),
    ],
)
def test_other_tasks_have_words_of_their_own(report_of_task, task, agreement, truth):
    report = report_of_task(task)
    texts = [shown(print_report, report, BUNDLE), markdown(report)]
    for text in texts:
        said = " ".join(text.split())
        for fact in (agreement, f"{truth[0].upper()}{truth[1:]} on 500 real images", report.teacher.output.description):
            assert fact in said, fact
        assert said.count("An image counts") == 1, "the rule is told once"
        assert not re.search(r"accuracy|decision|decide|top-1|agreement with", said.replace("-neighbour accuracy", ""))
    page = html(report).partition('id="words"')[0]
    for fact in (agreement[0].upper() + agreement[1:], f"{truth} (95 %)", "An image counts"):
        assert fact in html(report), fact
    assert "Agreement with the teacher" not in page
    assert "top-1" not in page


def test_a_binary_network_is_told_as_a_classifier(report_of_task):
    text = " ".join(shown(print_report, report_of_task(TaskKind.BINARY), BUNDLE).split())
    for fact in (
        "binary image classification, pixels",
        "agreement with the teacher",
        "Accuracy on 500",
        "same decision",
    ):
        assert fact in text, fact
    assert "An image counts" not in text


@pytest.mark.parametrize("task", [TaskKind.EMBEDDING, TaskKind.SEGMENTATION])
def test_facts_name_the_task(report_of_task, task):
    teacher = report_of_task(task).teacher
    text = shown(print_facts, dataclasses.replace(teacher, num_classes=teacher.output.num_classes))
    assert f"task          {teacher.output.description}" in text
    assert "classes       " not in text


def test_the_facts_of_a_run_are_there(report):
    text = shown(print_report, report, BUNDLE)
    for fact in (
        "edgerecover 0.1.0: model.pt for jetson-orin",
        "models.py:resnet20, 269,722 parameters, 80.4 % zeros (unstructured)",
        "profile balanced, seed 0, cpu (2 threads), data used: none",
        "1,536 dreams, 8.61/s, 99.3 % classified as intended",
        "41.0 %",
        "91.0 % (86.9–93.9) with the teacher on 256 held-out dreams",
        "expected   97 % (95–99) of the teacher's accuracy kept on real images",
        "67,084 of 268,336 are nonzero (25.0 %)",
        "1.12 MB, opset 18, batch 1",
        "2,000 after 50 warm-ups",
        "Intel(R) Xeon(R) Platinum 8488C, 2 cores",
        "onnxruntime 1.31.1, CPUExecutionProvider, 2 threads",
        "15.4 MB more than the bare runtime",
        "DEVICE  1 gate to settle on jetson-orin",
        "3 keys of optimizer state were ignored",
        BUNDLE,
    ):
        assert fact in text


@pytest.mark.parametrize(("sums", "words"), [(Int8Sums.EXACT, "its sums are exact"), (Int8Sums.HOST, "the target's")])
def test_how_int8_was_judged_is_said(report, sums, words):
    report = dataclasses.replace(report, int8_sums=sums)
    for text in (shown(print_report, report, BUNDLE, width=200), markdown(report), html(report)):
        assert words in unescape(text)


def test_stages_add_up_and_the_kept_rung_is_marked(report):
    lines = shown(print_report, report, BUNDLE).splitlines()
    assert [line.split() for line in lines if "total" in line] == [["total", "4", "min", "25", "s"]]
    assert [line.split()[0] for line in lines if line.rstrip().endswith(" kept")] == ["distillation"]


def test_a_bar_is_as_long_as_its_number(report):
    lines = shown(print_report, report, BUNDLE).splitlines()
    (repaired,) = [line for line in lines if "statistics repair" in line]
    assert repaired.count("█") == round(24 * 0.742)
    assert repaired.count("█") + repaired.count("░") == 24


@pytest.mark.parametrize(("hits", "filled"), [(10**12, 24), (-5, 0)])
def test_a_bar_stays_in_its_columns_whatever_a_report_says(report, hits, filled):
    fidelity = dataclasses.replace(report.fidelity, recovered=Proportion(hits, DREAMS))
    lines = shown(print_report, dataclasses.replace(report, fidelity=fidelity), BUNDLE).splitlines()
    (recovered,) = [line for line in lines if "recovered, in PyTorch" in line]
    assert recovered.count("█") == filled


def test_what_an_earlier_run_has_done_is_said(report):
    stages = tuple(dataclasses.replace(stage, reused=stage.stage == "synthesize") for stage in report.stages)
    text = shown(print_report, dataclasses.replace(report, stages=stages), BUNDLE)
    assert text.count("from an earlier run") == 1
    assert "from an earlier run: 1,536 dreams" in text


@pytest.mark.parametrize("width", [60, 80, 100, 200])
@pytest.mark.parametrize("name", ["report", "report_with_accuracy"])
def test_no_line_is_wider_than_the_terminal_or_than_prose_should_be(request, name, width):
    text = shown(print_report, request.getfixturevalue(name), BUNDLE, width=width)
    assert max(len(line) for line in text.splitlines()) <= min(width, 100)


def test_everything_wraps_at_80_columns_without_loss(report):
    """Long texts fold; nothing is cut with an ellipsis."""
    exporter = "torchscript (dynamo failed: " + "x" * 120 + ")"
    report = dataclasses.replace(
        report,
        exported=dataclasses.replace(report.exported, exporter=exporter),
        student=dataclasses.replace(report.student, architecture="package.module:" + "factory" * 20),
        warnings=("w" * 200,),
    )
    text = shown(print_report, report, "/deep" * 40)
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "…" not in text
    packed = re.sub(r"\s", "", text)
    for whole in (exporter, "factory" * 20, "w" * 200, "/deep" * 40):
        assert re.sub(r"\s", "", whole) in packed


def test_brackets_in_texts_are_not_markup(report):
    exporter = "torchscript (dynamo failed: shape [1, 3] against [/red])"
    report = dataclasses.replace(report, exported=dataclasses.replace(report.exported, exporter=exporter))
    report = dataclasses.replace(report, warnings=("key [bold] ignored",), sparsity_verdict="[dim]zeros[/dim]")
    text = " ".join(shown(print_report, report, "out [red].bundle").split())
    for whole in (exporter, "key [bold] ignored", "[dim]zeros[/dim]", "out [red].bundle"):
        assert whole in text


def test_another_machine_gives_host_latency_and_the_target_target_latency(report):
    elsewhere, there = (shown(print_report, r, BUNDLE) for r in (report, on_target(report)))
    assert "host latency" in elsewhere
    assert "host p99 2.45 ms" in elsewhere
    assert "target latency" not in elsewhere
    assert "target latency" in there
    assert "Jetson Orin Nano, 6 cores" in there
    assert not re.search(r"host p99", there)


def test_a_race_is_not_repeated_where_the_runner_cannot_run(full_report):
    without = dataclasses.replace(full_report, race=dataclasses.replace(full_report.race, has_runner=False))
    says = ["repeats the race" in shown(print_report, one, BUNDLE) for one in (full_report, without)]
    assert says == [True, False]


def test_a_student_of_another_architecture_is_not_called_pruned(report_with_accuracy):
    teacher = dataclasses.replace(report_with_accuracy.teacher, architecture="models.py:resnet56")
    other = dataclasses.replace(report_with_accuracy, teacher=teacher, same_architecture=False)
    text = shown(print_report, other, BUNDLE)
    assert "teacher    models.py:resnet56, 269,722 parameters" in text
    assert "as it came  60.6 % (56.3–64.8)" in text
    assert "(35.9–47.9) as it came, before recovery" in text
    assert "models.py:resnet56" not in shown(print_report, report_with_accuracy, BUNDLE)


def test_accuracy_is_spoken_of_only_with_real_data(report, report_with_accuracy):
    without_prediction = dataclasses.replace(report, fidelity=dataclasses.replace(report.fidelity, predicted=None))
    assert "accuracy" not in shown(print_report, without_prediction, BUNDLE).lower()
    text = shown(print_report, report_with_accuracy, BUNDLE)
    assert "Accuracy on 500 real images: cifar10_dev" in text
    for line in ("teacher    91.0 % (88.2–93.2)", "pruned     60.6 % (56.3–64.8)", "exported   89.8 % (86.8–92.2)"):
        assert line in text
    assert "accuracy 60.6 → 89.8 %" in text


@pytest.mark.parametrize(
    ("status", "word"),
    [(GateStatus.PASS, "PASS"), (GateStatus.FAIL, "FAIL"), (GateStatus.INCONCLUSIVE, "INCONCLUSIVE")],
)
def test_the_verdict_stands_in_words_at_the_end(report, status, word):
    gates = (Gate("agreement", status, 0, 0, "at least", "%", "profile balanced", "as measured"),)
    lines = shown(print_report, dataclasses.replace(report, gates=gates, warnings=()), BUNDLE).splitlines()
    assert f"  {word}  as measured" in "\n".join(lines)
    assert [line.split()[0] for line in lines[-3:]] == [word, "bundle", "words"]
    assert "DEVICE" not in "\n".join(lines)


def test_the_longest_word_of_a_status_leaves_room_at_80_columns(report):
    long = Gate("agreement", GateStatus.INCONCLUSIVE, 0, 0, "at least", "%", "profile balanced", "as measured " * 20)
    text = shown(print_report, dataclasses.replace(report, gates=(*report.gates, long)), BUNDLE)
    assert "  INCONCLUSIVE  as measured as measured" in text
    assert max(len(line) for line in text.splitlines()) <= 80


def test_several_gates_may_wait_for_the_device(report):
    report = dataclasses.replace(report, gates=(*report.gates, report.gates[-1]))
    assert "2 gates to settle on jetson-orin" in shown(print_report, report, BUNDLE)


def test_colour_says_nothing_that_words_do_not(report):
    plain = shown(print_report, report, BUNDLE)
    coloured = shown(print_report, report, BUNDLE, no_color=False, force_terminal=True, color_system="truecolor")
    assert "\x1b[" not in plain
    assert "\x1b[" in coloured
    assert re.sub(r" *\n", "\n", re.sub(r"\x1b\[[0-9;]*m", "", coloured)) == plain


def test_a_dynamic_batch_and_dreams_without_targets(report):
    report = dataclasses.replace(
        report,
        exported=dataclasses.replace(report.exported, batch=None, num_weights=0, num_nonzero=0),
        synthetic=dataclasses.replace(report.synthetic, teacher_agrees_with_target=None),
    )
    text = shown(print_report, report, BUNDLE)
    assert "dynamic batch" in text
    assert "classified as intended" not in text


def test_facts_of_a_checkpoint(report):
    text = shown(print_facts, report.student)
    for fact in (
        "model.pt",
        "state_dict under 'model', prefix 'module.', 1.1 MB",
        report.student.sha256,
        "models.py:resnet20 (model.toml)",
        "269,722; 19 batch norm layers",
        "3×32×32, pixels 0 to 1 (model.toml)",
        "80.4 % of 40,240 weights, unstructured",
        "none (zeros only)",
        "not in it",
    ):
        assert fact in text
    assert "; 1 batch norm layer\n" in shown(print_facts, dataclasses.replace(report.student, num_batch_norms=1))
    (row,) = [line for line in text.splitlines() if "layer1.0.conv1.weight" in line]
    assert row.split() == ["layer1.0.conv1.weight", "16×16×3×3", "52.6", "%", "██████░░░░░░", "unstructured"]
    assert max(len(line) for line in text.splitlines()) <= 80


def test_facts_of_outputs_that_are_left_out_are_shown(report):
    assert "Warnings" not in shown(print_facts, report.student)
    text = shown(print_facts, dataclasses.replace(report.student, warnings=("left out: levels_0 [2, 8, 4, 4]",)))
    assert "Warnings" in text
    assert "left out: levels_0 [2, 8, 4, 4]" in text


def test_masks_that_were_not_used_leave_no_network_dense(report):
    facts = dataclasses.replace(report.student, sparsity=Sparsity((), Pattern.DENSE))
    assert "of 0 weights, dense" in shown(print_facts, facts)
    text = shown(print_facts, dataclasses.replace(facts, doubts=("'masks' beside them looks like masks, not used",)))
    assert "of 0 weights, not known to be pruned" in text
    assert "not used: see format" in text


def test_facts_of_an_unknown_checkpoint_say_what_to_do(report):
    facts = dataclasses.replace(
        report.student,
        architecture=None,
        num_classes=None,
        input=None,
        has_masks=True,
        teacher_inside=True,
        sparsity=Sparsity((), Pattern.DENSE),
    )
    text = shown(print_facts, facts)
    assert "not recognised: use --arch or model.toml" in text
    assert "explicit, applied" in text
    assert "in the checkpoint: the dense weights under the masks" in text
    assert "classes" not in text


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_a_name_is_broken_after_its_dots_and_not_in_a_word(width):
    name = "features.denseblock12.denselayer13.convolution1.weight_orig"
    text = shown(lambda console: show(console, grid([(Name(name), "64×64×3×3", "80.0 %")], folds=0)), width=width)
    lines = [line.split()[0] for line in text.splitlines()]
    assert "".join(lines) == name
    assert all(line.endswith((".", "_")) for line in lines[:-1])


def test_pairs_are_aligned():
    lines = shown(print_pairs, {"a": "first [x]", "longer": "second"}).splitlines()
    assert [line.rstrip() for line in lines] == ["  a       first [x]", "  longer  second"]


def test_a_file_from_elsewhere_shows_what_there_is(report):
    alone = dataclasses.replace(report.fidelity, pruned=None, recovered=None, predicted=None)
    judged = dataclasses.replace(report, rungs=(), parity=None, fidelity=alone)
    console = Console(file=io.StringIO(), width=80, no_color=True)
    print_report(console, judged, None)
    text = console.file.getvalue()
    for absent in ("Recovery:", "parity", "as pruned", "None", "→"):
        assert absent not in text
    assert "bundle" not in text.rpartition("Verdict")[2]
    assert "with the teacher on 256 held-out dreams" in " ".join(text.split())


def test_the_way_goes_from_the_pruned_network_to_every_file(full_report):
    text = shown(print_report, full_report, BUNDLE)
    section = text.partition("From dense to deployed")[2].partition("Accuracy on")[0]
    lines = [" ".join(line.replace("█", "").replace("░", "").split()) for line in section.splitlines()[1:]]
    assert [line for line in lines if line] == [
        "on 256 calibration dreams",
        "pruned 41.0 %",
        "statistics repair 74.2 % 9.8 s",
        "distillation 91.8 % 58 s kept",
        "on 256 held-out dreams",
        "pruned 41.8 %",
        "recovered, in PyTorch 91.0 %",
        "int8, openvino 78.5 % loses too much",
        "fp32, onnxruntime 91.0 % shipped",
    ]


def test_latency_shows_its_tail_its_spread_and_what_speaks_against_it(full_report):
    text = shown(print_report, full_report, BUNDLE)
    section = text.partition("Latency, batch 1")[2].partition("Gates")[0]
    for percentile in ("p50", "p90", "p95", "p99"):
        assert re.search(rf"{percentile} +[\d.]+ ms \([\d.]+–[\d.]+\) +█", section)
    assert re.search(r"spread +[\d.]+ [▁▂▃▄▅▆▇█]{24} [\d.]+ ms", section)
    words = " ".join(section.split())
    assert "conditions governor powersave, CPU at 2,000–3,100 MHz, 0.1 cores busy with other work" in words
    assert "doubts the CPU's clock moved between 2,000 and 3,100 MHz" in words


def test_a_terminal_that_lacks_blocks_gets_bars_all_the_same(full_report):
    file = io.BytesIO()
    stream = io.TextIOWrapper(file, encoding="ascii")
    write_nearest(stream)
    print_report(Console(width=80, file=stream), full_report, BUNDLE)
    stream.flush()
    lines = file.getvalue().decode("ascii").splitlines()
    (repaired,) = [line for line in lines if "statistics repair" in line]
    assert "##################......" in repaired
    assert max(map(len, lines)) <= 80
    assert any(re.search(r"spread +[\d.]+ [_.:=+*#-]{24} [\d.]+ ms", line) for line in lines)
    assert "?" not in "\n".join(lines)


def test_nothing_in_a_report_steers_the_terminal(full_report):
    evil = "\x1b]0;title\x07\x1b[2J\u202etxt"
    hostile = dataclasses.replace(
        full_report,
        student=dataclasses.replace(full_report.student, path=evil, architecture=evil),
        target=evil,
        warnings=(evil,),
        gates=tuple(dataclasses.replace(gate, message=evil) for gate in full_report.gates),
        latency=dataclasses.replace(full_report.latency, runtime=evil, scope=evil),
    )
    text = shown(print_report, hostile, evil) + shown(print_facts, hostile.student)
    for character in "\x1b\x07\u202e":
        assert character not in text
    assert "\\x1b[2J\\u202etxt" in text


def test_text_in_a_file_has_no_trailing_blanks(report):
    file = io.StringIO()
    print_report(Console(file=file, width=80), report, "out.bundle")
    lines = file.getvalue().splitlines()
    assert len(lines) > 40
    assert [line for line in lines if line != line.rstrip()] == []


def test_a_report_that_is_read_again_is_shown_alike(full_report):
    """Counts come back from JSON as floats, and are still counts."""
    again = from_json(Report, json.loads(json.dumps(to_json(full_report))))
    assert shown(print_report, again, BUNDLE) == shown(print_report, full_report, BUNDLE)
