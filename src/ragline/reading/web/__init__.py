"""What is behind a URL? Pages are fetched, never trusted, and handed to the file reader."""
