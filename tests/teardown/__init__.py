"""Every way an end can go, times what the other end is doing: acted out, and the table of it."""
