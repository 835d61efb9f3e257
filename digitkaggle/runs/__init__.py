"""A run on one's own machine: its folder, resuming, time budget, jobs, and reading results back."""
