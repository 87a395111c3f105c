"""What an ONNX file holds, read without running it."""
