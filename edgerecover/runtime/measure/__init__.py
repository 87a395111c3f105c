"""Latency, energy, and the conditions they were measured under."""
