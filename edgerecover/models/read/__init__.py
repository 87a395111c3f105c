"""From the path of a checkpoint to a `Checkpoint`: float32 tensors by name, masks, and what the file says of itself.

In: a path (`load.read_checkpoint`). Out: `load.Checkpoint`. No code in the file runs; pickles are parsed, not loaded.
"""
