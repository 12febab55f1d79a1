"""Where is it? Views over the store: vectors, words, attributes."""
