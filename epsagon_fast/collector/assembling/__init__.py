"""From records to traces, and from a closed trace to the body that is sent."""
