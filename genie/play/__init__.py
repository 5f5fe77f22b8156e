"""`genie play`: a server, one page and, beside the dream, the real game."""
