"""The machine: what it is, what it has, and processes of our own on it."""
