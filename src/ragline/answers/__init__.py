"""Is it still true? Answers that were given before, served again only while they hold."""
