"""What each command does, in straight lines."""
