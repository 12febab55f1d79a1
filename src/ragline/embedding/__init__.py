"""What does it mean? Texts become vectors."""
