"""What this machine has for recovering, exporting and running models, and what it lacks. Changes nothing."""
