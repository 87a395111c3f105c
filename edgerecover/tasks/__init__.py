"""What a network is for: for each task a measure, which says what agreement means, and an objective, which teaches.

Measures need numpy alone, so that devices have them; objectives need torch.
"""
