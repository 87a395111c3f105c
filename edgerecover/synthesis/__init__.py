"""Images dreamt from the teacher, and the sets that keep them on disk."""
