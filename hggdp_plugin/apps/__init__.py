"""What a user runs: the SigPy app, and the command lines."""
