"""The boundary between processes: nothing else maps memory, forks, or knows where things lie."""
