"""`python -m edgerecover` is the command line."""

from edgerecover.cli import main

if __name__ == "__main__":
    main()
