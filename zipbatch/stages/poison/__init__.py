"""Stage poisoned datasets: which images, with which trigger, written as shards."""
