"""From the path of an ONNX file to its facts and weights, read without running it.

In: a path (`file.read_onnx`). Out: `file.OnnxFile`, whose weights are read one at a time.
"""
