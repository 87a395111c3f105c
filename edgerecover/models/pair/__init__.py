"""A student with its teacher: where every command that needs networks begins.

In: paths and `ModelFlags` (`networks.open_models`, `open_classifier`, `open_network`, `inspect`).
Out: `networks.Models`: both networks, masks, the channels that the student kept, facts and warnings.
"""
