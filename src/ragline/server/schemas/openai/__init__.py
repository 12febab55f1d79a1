"""The JSON of OpenAI's API, as far as it is spoken here."""
