"""From a file to plain tensors by name, with nothing in it run."""
