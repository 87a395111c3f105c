"""Which network a file is for: what its user says, what its names and shapes tell, and whom to trust."""
