"""Work that outlives a request: accepted, remembered, done once."""
