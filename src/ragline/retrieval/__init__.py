"""What is relevant? A question becomes scored chunks."""
