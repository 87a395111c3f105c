"""An ONNX file as TensorRT's parser reads it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from edgerecover.artifacts.engines import TENSORRT, TENSORRT_RTX, Acceptance, EngineRecipe
from edgerecover.errors import BadInputError, MissingError, StageError
from edgerecover.runtime.machine.cuda import check_driver
from edgerecover.runtime.machine.tensorrt_module import (
    WORDS,
    Log,
    first_of,
    import_tensorrt,
    logger_into,
    major,
    one_line,
    version_of,
)

STRONGLY_TYPED = "STRONGLY_TYPED"


@dataclass(frozen=True)
class Network:
    """A parsed file, with all that must live as long as it does."""

    module: ModuleType
    builder: Any
    definition: Any
    parser: Any
    log: Log
    strongly_typed: bool


class RefusedByParserError(BadInputError):
    """The parser does not take the file; `problems` names nodes."""

    def __init__(self, message: str, problems: tuple[str, ...], *, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.problems = problems


def parse_onnx(onnx: Path, recipe: EngineRecipe, log: Log) -> Network:
    """Read `onnx` with the parser of the recipe's runtime.

    Raises:
        BadInputError: the parser refuses it (`RefusedByParserError`), or it holds no network.
        MissingError: the runtime, or the GPU that it needs, is not here.
    """
    module = import_tensorrt(recipe.runtime)
    if recipe.runtime == TENSORRT:  # even its builder needs a GPU; TensorRT-RTX builds without one
        check_driver()
    if not onnx.is_file():
        raise BadInputError(f"{onnx}: no such file", hint="check the path")
    logger = logger_into(module, log)
    builder = _builder(module, logger, log)
    strongly = _strongly_typed(module, recipe)
    definition = builder.create_network(_creation_flags(module, strongly))
    parser = module.OnnxParser(definition, logger)
    if not _parse(parser, onnx):
        problems = tuple(_problem(parser.get_error(index)) for index in range(parser.num_errors))
        problems = tuple(dict.fromkeys(filter(None, problems))) or log.errors
        raise RefusedByParserError(
            f"{onnx}: {WORDS[recipe.runtime]} {version_of(module)} rejects it: "
            f"{first_of(problems, 'its parser gives no reason')}",
            problems,
            hint=_advice(problems),
        )
    _refuse_unsigned(onnx, recipe, log, module)
    if not definition.num_inputs or not definition.num_outputs:
        raise BadInputError(f"{onnx}: holds no network with an input and an output", hint="name an .onnx file")
    return Network(module, builder, definition, parser, log, strongly)


def accepted_here(onnx: Path, runtime: str, question: str) -> Acceptance:
    """Ask one parser, in this process.

    Args:
        onnx: the file.
        runtime: whose parser is asked.
        question: the runtime that the answer is wanted for.

    Raises:
        MissingError: that parser is not here.
    """
    log = Log()
    by = f"{WORDS[runtime]} {version_of(import_tensorrt(runtime))}"
    try:
        with names_are_text(onnx):
            network = parse_onnx(onnx, EngineRecipe(runtime=runtime), log)
    except RefusedByParserError as error:
        return Acceptance(False, by, runtime != question, 0, error.problems)
    except BadInputError as error:
        return Acceptance(False, by, runtime != question, 0, (error.message,))
    return Acceptance(True, by, runtime != question, network.definition.num_layers, (), log.texts("WARNING"))


def available_parser(question: str) -> str:
    """The runtime whose parser can answer for `question`: itself where it runs, else TensorRT-RTX.

    Raises:
        MissingError: neither is here.
    """
    if question == TENSORRT:
        try:
            import_tensorrt(TENSORRT)
            check_driver()
        except MissingError:
            import_tensorrt(TENSORRT_RTX)
            return TENSORRT_RTX
        return TENSORRT
    import_tensorrt(question)
    return question


_READ_AS_SIGNED = re.compile(r"UINT8.*Defaulting to INT8")
"""The parser's warning about unsigned Q/DQ with zero point 0 (TensorRT-RTX 1.7.1, onnxOpImporters.cpp)."""


def _refuse_unsigned(onnx: Path, recipe: EngineRecipe, log: Log, module: ModuleType) -> None:
    """Unsigned activations that the parser takes for signed ones are cut off at half their range: no error says so."""
    if not any(_READ_AS_SIGNED.search(text) for text in log.texts("WARNING")):
        return
    problem = (
        "its uint8 activations (QuantizeLinear, zero point 0) would be read as int8 and cut off at half their range"
    )
    raise RefusedByParserError(
        f"{onnx}: {WORDS[recipe.runtime]} {version_of(module)} misreads it: {problem}",
        (problem,),
        hint="quantise symmetrically to int8 (onnxruntime: ActivationSymmetric True, activations QInt8), or make the "
        "file with `edgerecover run` for a target of this runtime",
    )


def _builder(module: ModuleType, logger: Any, log: Log) -> Any:
    try:
        return module.Builder(logger)
    except (TypeError, RuntimeError) as error:  # pybind11's word for a factory that returned nothing
        raise StageError(
            f"TensorRT {version_of(module)} does not start: {first_of(log.errors, one_line(str(error)))}",
            hint="check that the GPU driver fits this version of TensorRT",
        ) from error


def _strongly_typed(module: ModuleType, recipe: EngineRecipe) -> bool:
    """Whether the file's own types hold. TensorRT before 9 cannot; DLA before 11 takes types by builder flags.

    The former: Migrating from TensorRT 10.x to 11.x; the latter: Working with DLA (TensorRT documentation, 10.3:
    "limited to networks running in FP16 and INT8 mode"; 11.4.1: "all networks are strongly typed, including DLA").
    """
    if not hasattr(module.NetworkDefinitionCreationFlag, STRONGLY_TYPED):
        return False
    weakly_typed_dla = recipe.runtime == TENSORRT and recipe.dla_core is not None and major(module) < 11
    return not weakly_typed_dla


def _creation_flags(module: ModuleType, strongly_typed: bool) -> int:
    kinds = module.NetworkDefinitionCreationFlag
    flags = 0
    if strongly_typed:
        flags |= 1 << int(kinds.STRONGLY_TYPED)
    if hasattr(kinds, "EXPLICIT_BATCH") and major(module) < 10:  # since 10, there is no other batch
        flags |= 1 << int(kinds.EXPLICIT_BATCH)
    return flags


def _parse(parser: Any, onnx: Path) -> bool:
    try:
        return bool(parser.parse_from_file(str(onnx)))
    except Exception as error:  # pybind11 turns what C++ throws into RuntimeError, MemoryError and others
        raise RefusedByParserError(
            f"{onnx}: TensorRT's parser fails on it: {one_line(str(error)) or type(error).__name__}",
            (one_line(str(error)) or type(error).__name__,),
            hint="the file is damaged, or needs more memory than there is",
        ) from error


def _problem(error: Any) -> str:
    """What the parser says of one node: "node fc.bias_DequantizeLinear (DequantizeLinear): its input has …"."""
    described = one_line(_text(error, "desc"))
    node, operator = (_text(error, name) for name in _OF_NODE)
    if not node and not operator:
        return described
    for prefix in (node, f"{node}:"):  # it says the node's name twice: we say it once
        described = described.removeprefix(prefix).strip()
    if wrapped := re.match(rf"(?:API Usage|Internal) Error \((?:{re.escape(node)}: )?(.*)\)$", described):
        described = wrapped[1]
    return f"node {node or error.node()} ({operator or 'operator unknown'}): {described or 'no reason given'}"


def _text(error: Any, name: str) -> str:
    """What one part of a parser's error says; nothing where this version has no such part."""
    if not hasattr(error, name):
        return ""
    try:
        return str(getattr(error, name)())
    except UnicodeDecodeError:
        return "(not UTF-8)"


@contextmanager
def names_are_text(onnx: Path) -> Iterator[None]:
    """Its bindings fail on every name in a file that is not UTF-8, wherever that comes up."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise BadInputError(f"{onnx}: a name in it is not UTF-8 text", hint="the file is damaged") from error


_OF_NODE = ("node_name", "node_operator")
"""TensorRT 8.x has neither: there, the node's number must do."""

_KNOWN_PROBLEMS = (
    (
        r"[Ii]nt32",
        "quantise weights and activations symmetrically to int8 and leave biases in float "
        "(onnxruntime: ActivationSymmetric True, QuantizeBias False)",
    ),
    (r"zero.?point|asymmetric|UInt8|uint8", "quantise symmetrically to int8: every zero point 0"),
    (r"[Pp]lugin|not supported|No importer", "export with standard ONNX operators that TensorRT has"),
    (r"parse the ONNX model|ParseFromCodedStream", "the file is damaged, or no ONNX model"),
)


def _advice(problems: Sequence[str]) -> str:
    text = " ".join(problems)
    known = (advice for pattern, advice in _KNOWN_PROBLEMS if re.search(pattern, text))
    return next(known, "export it again with a lower opset, or with other operators there")
