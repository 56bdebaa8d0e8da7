"""Decides which closed traces are sent: rules, what they remember, and the traces that wait for others of a request."""
