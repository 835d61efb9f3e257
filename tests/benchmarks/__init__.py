"""What `make bench` runs: measurements of whole runs and of their parts, side by side."""
