"""Own pictures of digits, and a page to draw on."""
