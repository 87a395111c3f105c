"""Which architecture a checkpoint is of, what its input looks like, and whether the code it names may run.

In: the checkpoint's path and the command line's `flags.ModelFlags` (`spec.resolve`), or tensors (`recognise`).
Out: `spec.ModelSpec`. Nothing is built here.
"""
