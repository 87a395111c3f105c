"""The report as a self-contained page."""
