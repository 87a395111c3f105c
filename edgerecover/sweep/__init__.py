"""One model, pruned and recovered in several ways: which of them are Pareto-optimal."""
