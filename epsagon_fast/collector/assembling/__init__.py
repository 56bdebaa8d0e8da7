"""Open traces: what came of each so far, and the body of one that is closed."""
