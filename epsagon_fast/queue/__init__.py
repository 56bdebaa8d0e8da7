"""The boundary between processes: only this package maps files of shared memory and starts collectors."""
