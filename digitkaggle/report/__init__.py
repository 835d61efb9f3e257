"""What a finished run has to show: a page with its figures, and runs side by side."""
