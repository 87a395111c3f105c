"""Judging the exported file: fidelity to the teacher, parity with PyTorch, gates, accuracy on given data."""
