"""Opening what users hold: checkpoints of the usual kinds, their architectures, and whom to trust."""
