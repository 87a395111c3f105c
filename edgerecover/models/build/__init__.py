"""From a name and tensors to a network."""
