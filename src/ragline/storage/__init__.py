"""What is true? The store."""
