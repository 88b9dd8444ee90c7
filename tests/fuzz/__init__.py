"""Damaged and made-up input for every parser: it reads, or raises one of our errors, and does nothing else."""
