"""Whether a victim looks backdoored, and which images."""
