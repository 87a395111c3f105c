"""The stages of a run, one word and one module each."""
