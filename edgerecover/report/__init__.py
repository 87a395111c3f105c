"""Views of `artifacts.Report` and `artifacts.ModelFacts` for people: terminal, Markdown, pictures, live progress."""
