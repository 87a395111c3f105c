"""From a `ModelSpec` and a `Checkpoint` to a network with these weights.

In: what `name` and `read` found (`completion.complete`, then `opening.open_checkpoint`). Out: `opening.OpenCheckpoint`,
float32, on the CPU and in eval mode, its layers as narrow as the checkpoint's tensors.
"""
