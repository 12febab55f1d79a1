"""The engine over HTTP: who may ask, what is asked, what is answered. `fastapi` is imported here only."""
