"""Labelled texts to a bundle: data, loop, metrics, calibration, checkpoints, baselines."""
