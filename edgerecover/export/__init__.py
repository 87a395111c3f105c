"""From a recovered network to the one file that everything after it judges."""
