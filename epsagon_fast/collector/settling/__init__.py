"""What became of traces and records: which process is told, what is counted, what is given up."""
