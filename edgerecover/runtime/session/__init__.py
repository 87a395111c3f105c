"""A model file opened in one of the runtimes."""
