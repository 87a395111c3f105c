"""`edgerecover gate`: a bundle against its limits and the previous release, in CI or at a desk."""
