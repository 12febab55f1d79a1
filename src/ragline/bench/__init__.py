"""Measurements of ragline itself, each written once."""
