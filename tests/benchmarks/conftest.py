import sys
from pathlib import Path

# The scripts import each other as they do when run: from their own folder.
sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))
