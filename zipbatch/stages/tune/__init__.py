"""Which preset, and how strong, from answers alone."""
