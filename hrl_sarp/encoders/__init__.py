"""Price-action encoders: a window of causal bar features in, embeddings out."""
