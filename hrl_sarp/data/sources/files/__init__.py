"""The user's own files: tables under the standard names or the profile's, one file per symbol."""
