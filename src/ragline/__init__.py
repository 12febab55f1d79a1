"""ragline: documents go in, cited answers come out."""
