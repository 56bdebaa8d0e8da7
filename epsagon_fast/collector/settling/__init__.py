"""What became of traces and records: who is told, and what is counted."""
