"""Measurements of ragline itself, each written once: `python -m ragline.bench`."""
