"""Private keys and signing, nothing else."""
