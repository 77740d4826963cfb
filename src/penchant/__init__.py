"""Penchant: interest profiles from text that stay exact for ever and explain every weight."""

from importlib.metadata import version

__version__ = version("penchant")
