"""`edgerecover gate`: a bundle beside its limits and the release before, for CI and for a desk alike."""
