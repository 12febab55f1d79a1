"""What did we compute before? Key-value tiers."""
