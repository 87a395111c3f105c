"""fp16 and int8 inside the ONNX file, made from the float32 export on synthetic calibration images."""

from edgerecover.artifacts.int8 import SCHEMES, Int8Scheme, scheme_named
from edgerecover.export.precision.make import MAX_POINTS_LOST, make_variants
from edgerecover.export.precision.trial import Calibration

__all__ = ["MAX_POINTS_LOST", "SCHEMES", "Calibration", "Int8Scheme", "make_variants", "scheme_named"]
