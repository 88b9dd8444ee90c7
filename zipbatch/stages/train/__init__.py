"""Train victims, priors and restorers, and calibrate priors."""
