"""Models to copy from: each file is one arm, as in `--arms torch:examples.two_tower:make`; see docs/own-model.md."""
