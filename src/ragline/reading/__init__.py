"""Where does the text come from? A file becomes a text with headings and pages."""
