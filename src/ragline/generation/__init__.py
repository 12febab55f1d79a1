"""What is the answer? Chunks become a cited answer."""
