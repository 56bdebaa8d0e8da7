"""Files that outlive the collector, with all that was read from the rings and is not settled yet."""
