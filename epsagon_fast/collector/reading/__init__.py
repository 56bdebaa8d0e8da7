"""From the rings into the journal and the assembly; at start from the journal alone."""
