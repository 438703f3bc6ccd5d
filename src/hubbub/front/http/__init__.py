"""HTTP/1.1 as every door speaks it: requests read, answers in order, every client bounded."""
