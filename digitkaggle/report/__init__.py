"""The report of a finished run, a page with figures, and the comparison of several runs."""
