"""A student with its teacher: the door to everything that needs networks."""
