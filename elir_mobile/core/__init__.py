"""What runs on a device too: imports NumPy and the standard library, nothing else."""
