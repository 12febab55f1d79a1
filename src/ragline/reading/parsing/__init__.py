"""The parser: what runs in a process of its own, because files can be hostile and native parsers can crash.

Nothing here imports the rest of ragline: a parser process starts in a moment and holds no more than it needs.
"""
