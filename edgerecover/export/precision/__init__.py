"""fp16 and int8 inside the ONNX file, made from the float32 export on synthetic calibration images."""

from edgerecover.export.precision.make import MAX_POINTS_LOST, Calibration, make_variants
from edgerecover.export.precision.schemes import SCHEMES, Int8Scheme, scheme_named

__all__ = ["MAX_POINTS_LOST", "SCHEMES", "Calibration", "Int8Scheme", "make_variants", "scheme_named"]
