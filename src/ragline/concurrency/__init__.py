"""Threads, limits and the like: no domain words."""
