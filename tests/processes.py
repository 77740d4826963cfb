"""Processes for tests that kill one, or let several write at once."""

import multiprocessing
from multiprocessing.context import ForkServerContext

PRELOADED = ["pytest", "ibis.backends.duckdb", "penchant.profiles.snapshot", "tests.objects", "tests.snapshots", "tests.tables"]


def forking() -> ForkServerContext:
    """Processes that begin at once: each is a fork of one that has imported what they need, and done nothing with it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context
