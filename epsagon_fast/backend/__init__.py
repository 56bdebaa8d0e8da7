"""The embedded backend: a small HTTP server that keeps traces in SQLite, for demo, tests and development."""
