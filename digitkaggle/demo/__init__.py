"""Own pictures of digits, and the page to draw on: the model in one HTML file."""
