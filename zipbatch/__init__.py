"""zipbatch: purify backdoored image shards offline with ZIP (NeurIPS 2023, arXiv 2303.12175)."""

__version__ = "0.1.0"
