"""Sources to events: reading, mapping, cleaning, masking, deduplication, rejects."""
