"""The report as a page that needs nothing beside it."""
