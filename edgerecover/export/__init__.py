"""From a recovered network to ONNX files in every precision, and to the recipe of an engine."""
