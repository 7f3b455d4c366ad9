"""How files are written: headings, encodings, separators, days and numbers."""
