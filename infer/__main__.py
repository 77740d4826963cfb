"""python infer tag out/events -o out/tags.parquet; any other penchant command works the same."""

import sys

from penchant.cli import main

if __name__ == "__main__":
    main(sys.argv[1:])
