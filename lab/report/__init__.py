"""Ways to look at a value: for the terminal, as a page, as a drawing. Nothing here needs root."""
