"""`loopfuse bench`."""
