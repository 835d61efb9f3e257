"""A run on your own machine: its folder, resuming, time budget, jobs, and reading it back."""
