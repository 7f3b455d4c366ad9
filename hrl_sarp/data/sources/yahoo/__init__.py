"""Yahoo Finance: what is asked, how patiently, and what is kept on disk."""
