"""The activation record: statistics of a teacher's activations on real data, shipped beside it instead of the data."""
