"""Measures: what traces say of the requests that they are of, how sending goes, and how all of it is shown."""
