"""What a network is, whatever file it came from: its norms, linear layers, outputs, zeros and cost.

In: an `nn.Module`. Out: facts about it, or the module changed in place where a docstring says so. No files here.
"""
