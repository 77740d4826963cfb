"""Adapters that run the library's functions over files on one machine; no logic of their own."""
