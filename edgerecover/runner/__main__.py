"""`python -m edgerecover.runner BUNDLE`, and the first line of runner.pyz."""

# The syntax of this file is that of every Python there is: an old one must get as far as the message.
import sys

if sys.version_info < (3, 10):  # noqa: UP036 - an archive is given to any Python
    sys.stderr.write(
        "error: this runner needs Python 3.10 or newer, and this is Python %s\n"  # noqa: UP031 - see above
        "next:  call it with a newer one, for example: python3.10 %s BUNDLE\n" % (sys.version.split()[0], sys.argv[0])
    )
    sys.exit(3)

from edgerecover.runner.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
