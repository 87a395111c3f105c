"""The half that runs on a device: onnxruntime and numpy, never torch."""
