"""What was read from the rings and is not settled yet, in files that outlive the collector."""
