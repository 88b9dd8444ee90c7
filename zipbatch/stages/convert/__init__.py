"""Victims, priors, datasets and purified images of other tools, and export."""
