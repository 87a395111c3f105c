"""TensorRT engines: their recipes, building them, and when one may be used."""
