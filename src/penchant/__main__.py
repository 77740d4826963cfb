"""`python -m penchant`: the command line."""

from penchant.cli import main

if __name__ == "__main__":
    main()
