"""Bringing a pruned student back: statistics repair, distillation under the mask, and choosing what helped."""
