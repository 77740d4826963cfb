"""accelerate launch train --config configs/train-interests.yaml."""

import sys

from penchant.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
