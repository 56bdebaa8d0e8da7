"""The outbox: finished traces that wait on disk for a backend that is not well."""
