"""How is it going? What is measured while running, what is written to the log, and how both are shown."""
