"""What a finished run has to show: a page, its figures, and runs side by side."""
