"""What a network is, whatever file it came from: its norms, linear maps, outputs, zeros and cost."""
